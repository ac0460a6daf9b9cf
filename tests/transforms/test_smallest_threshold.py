# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The search for γ: against the filter itself at every γ of the grid."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_medpruner.errors import NonFiniteVoxelsError, SettingsError
from monai_medpruner.transforms import InterSliceAnchorFilter
from monai_medpruner.transforms.anchor_rule import GAMMA_GRID, smallest_threshold


def number_kept(volume: np.ndarray, gamma: float) -> int:
    """Eq. 2 word for word, in float64, on a volume with slices first."""
    anchor, kept = volume[0], 1
    for pixels in volume[1:]:
        if np.abs(pixels - anchor).mean() > gamma:
            anchor, kept = pixels, kept + 1
    return kept


def by_trial(volume: np.ndarray, max_slices: int, grid: list[float]) -> float | None:
    """The smallest γ that keeps few enough slices, every one tried."""
    return min((gamma for gamma in grid if number_kept(volume, gamma) <= max_slices), default=None)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
    axis=st.integers(1, 3),
    layout=st.permutations(range(4)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.uint8]),
    max_slices=st.integers(1, 32),
)
def test_against_every_gamma_of_the_grid(seed, shape, axis, layout, dtype, max_slices):
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.standard_normal(shape) * rng.lognormal(size=shape), axis=0)
    volume = torch.as_tensor((20 * drift).clip(0, 250)).to(dtype)
    grid = [0.0, *rng.uniform(0, 250, 12).tolist(), 250.0]
    image = volume.movedim(0, axis).permute(layout).contiguous().permute(np.argsort(layout).tolist())
    found = smallest_threshold(image, axis, max_slices, grid)
    assert found == by_trial(volume.double().numpy(), max_slices, grid)
    kept = InterSliceAnchorFilter(found, axis - 1).kept_slices(image)
    assert len(kept) <= max_slices


def test_the_number_kept_is_not_monotone():
    """A γ below the answer may keep more slices than a smaller one; the smallest that suits is found."""
    levels = [0.0, 0.5, 0.9, 0.1, 0.9]
    volume = torch.tensor(levels).reshape(-1, 1, 1, 1).expand(5, 1, 3, 4)
    grid = [0.05, 0.45, 0.6, 0.85]
    counts = [number_kept(volume.double().numpy(), gamma) for gamma in grid]
    assert counts == [5, 2, 4, 2]
    assert [smallest_threshold(volume, 0, most, grid) for most in (5, 4, 3, 2)] == [0.05, 0.45, 0.45, 0.45]
    assert smallest_threshold(volume, 0, 3, grid[2:]) == 0.85


@pytest.mark.parametrize("max_slices", [1, 2, 5, 11, 40, 112])
def test_default_grid_on_a_real_volume(max_slices, shared_data):
    nibabel = pytest.importorskip("nibabel")
    voxels = np.asarray(nibabel.load(shared_data("ct_torso_nifti/ct.nii.gz")).dataobj, dtype=np.float32)
    volume = torch.as_tensor(((voxels + 160) / 400).clip(0, 1))[None]
    found = smallest_threshold(volume, 3, max_slices)
    slices = volume.movedim(-1, 0).double().numpy()
    assert number_kept(slices, found) <= max_slices
    assert all(number_kept(slices, gamma) > max_slices for gamma in GAMMA_GRID if gamma < found)


def test_default_grid():
    assert GAMMA_GRID[0] == 0
    assert GAMMA_GRID[-1] == 1
    assert all(low < high for low, high in pairwise(GAMMA_GRID))
    assert {0.025, 0.05, 0.1} <= set(GAMMA_GRID)


def test_last_gamma_of_the_grid_keeps_the_first_slice_alone():
    volume = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(1, 3, 3, 4)
    assert smallest_threshold(volume, 3, 1) == 1.0


def test_errors():
    volume = torch.tensor([0.0, 3.0, 0.0]).expand(1, 3, 3, 3)
    with pytest.raises(SettingsError, match=r"up to 1.0, keeps at most 2 of 3 slices"):
        smallest_threshold(volume, 3, 2)
    with pytest.raises(SettingsError, match="at least 1, got 0"):
        smallest_threshold(volume, 3, 0)
    with pytest.raises(NonFiniteVoxelsError, match="CheckVolume"):
        smallest_threshold(volume * torch.nan, 3, 2)
