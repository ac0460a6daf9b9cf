# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The anchor filter's guard for small lesions: against a plain float64 loop, in mm, on lesions that the mean misses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_medpruner.errors import NonFiniteVoxelsError, SettingsError, SpacingError, VolumeShapeError
from monai_medpruner.transforms import InterSliceAnchorFilter, InterSliceAnchorFilterd
from monai_medpruner.transforms.slice_rules import anchor

GUARD_ALONE = 1e9  # a threshold that no mean reaches


def largest_block_mean(difference: np.ndarray, block: tuple[int, int]) -> float:
    """Largest absolute mean over the blocks of a (C, H, W) difference; the last ones hold what is left."""
    means = []
    for channel in difference:
        for row in range(0, channel.shape[0], block[0]):
            for column in range(0, channel.shape[1], block[1]):
                means.append(channel[row : row + block[0], column : column + block[1]].mean())
    return max(abs(mean) for mean in means)


def plain_loop(volume: np.ndarray, gamma: float, axis: int, block: tuple[int, int], bound: float) -> list[int]:
    """The rule word for word, in float64."""
    slices = np.moveaxis(volume.astype(np.float64), axis, 0)
    kept = [0]
    for index in range(1, len(slices)):
        difference = slices[index] - slices[kept[-1]]
        if np.abs(difference).mean() > gamma or largest_block_mean(difference, block) > bound:
            kept.append(index)
    return kept


def pixels(guard_mm: float, spacing: tuple[float, ...], axis: int) -> tuple[int, int]:
    """Block of ``guard_mm`` in a slice of a volume with ``spacing``."""
    first, second = np.delete(spacing, axis - 1)
    return max(1, round(guard_mm / first)), max(1, round(guard_mm / second))


def spaced(volume: torch.Tensor, spacing: tuple[float, ...]) -> MetaTensor:
    """The volume with axes that point left, up and forward, so that the affine is no diagonal."""
    affine = torch.zeros(4, 4, dtype=torch.float64)
    affine[0, 1], affine[1, 2], affine[2, 0] = -spacing[1], spacing[2], -spacing[0]
    affine[:, 3] = torch.tensor([-200.0, 30.0, 4.0, 1.0])
    return MetaTensor(volume, affine=affine)


def drifting_volume(seed: int, shape: tuple[int, ...], axis: int, dtype: torch.dtype) -> torch.Tensor:
    """Slices of noise about a level that drifts by small steps, here and there by a large one."""
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.standard_normal(shape) * rng.lognormal(size=shape), axis=axis)
    values = 10 * (drift + rng.standard_normal(shape))
    lowest, highest = (0, 250) if dtype == torch.uint8 else (-3000, 3000)
    return torch.as_tensor(values.clip(lowest, highest)).to(dtype)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 13), st.integers(1, 13), st.integers(1, 13)),
    spatial_dim=st.integers(-3, 2),
    layout=st.permutations(range(4)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int16, torch.uint8]),
    spacing=st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 2.0, 3.3])] * 3),
    guard_mm=st.floats(0.1, 12.0),
    gamma_share=st.floats(0.0, 3.0) | st.just(GUARD_ALONE),
    bound_share=st.floats(0.01, 2.0),
)
def test_keeps_the_slices_of_a_float64_loop_on_random_volumes(
    seed, shape, spatial_dim, layout, dtype, spacing, guard_mm, gamma_share, bound_share
):
    axis = 1 + spatial_dim % 3
    volume = drifting_volume(seed, shape, axis, dtype)
    # the same volume in another memory order
    volume = volume.permute(layout).contiguous().permute(np.argsort(layout).tolist())
    block = pixels(guard_mm, spacing, axis)
    steps = np.moveaxis(np.diff(volume.double().numpy(), axis=axis), axis, 0)
    gamma = gamma_share * (float(np.abs(steps).mean()) if steps.size else 1.0)
    bound = bound_share * max([1e-3, *(largest_block_mean(step, block) for step in steps)])
    kept = InterSliceAnchorFilter(gamma, spatial_dim, guard_mm, bound).kept_slices(spaced(volume, spacing))
    assert kept == plain_loop(volume.numpy(), gamma, axis, block, bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.5, 5.0)])
def test_guard_keeps_slices_that_the_mean_drops(dtype, axis, spacing):
    volume = drifting_volume(axis, (2, 23, 31, 37), axis, dtype)
    block = pixels(4.0, spacing, axis)
    slices = np.moveaxis(volume.double().numpy(), axis, 0)
    # what changes over six slices in the mean, and over three in some block
    gamma = float(np.abs(slices[6:] - slices[:-6]).mean())
    bound = float(np.median([largest_block_mean(step, block) for step in slices[3:] - slices[:-3]]))
    kept = InterSliceAnchorFilter(gamma, axis - 1, 4.0, bound).kept_slices(spaced(volume, spacing))
    assert kept == plain_loop(volume.numpy(), gamma, axis, block, bound)
    guard_alone = InterSliceAnchorFilter(GUARD_ALONE, axis - 1, 4.0, bound).kept_slices(spaced(volume, spacing))
    assert guard_alone == plain_loop(volume.numpy(), GUARD_ALONE, axis, block, bound)
    mean_alone = InterSliceAnchorFilter(gamma, axis - 1).kept_slices(volume)
    assert 1 < len(mean_alone) < len(kept) < volume.shape[axis]
    assert 1 < len(guard_alone) < volume.shape[axis]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 11), st.integers(1, 11)),
    side=st.integers(1, 12),
)
def test_bound_is_the_largest_block_mean(seed, shape, side):
    """Means of the last blocks, which hold fewer pixels, are means of those pixels."""
    difference = np.random.default_rng(seed).standard_normal(shape)
    volume = torch.stack([torch.zeros(shape), torch.as_tensor(difference)], dim=-1)
    largest = largest_block_mean(difference, (side, side))
    for factor, expected in ((1 - 1e-12, [0, 1]), (1 + 1e-12, [0])):
        assert InterSliceAnchorFilter(GUARD_ALONE, -1, side, largest * factor).kept_slices(volume) == expected


def with_lesion(row: int, column: int, contrast: float, channels: int = 1) -> torch.Tensor:
    """Five noisy slices of 256 x 256 pixels; slice 2 shows a lesion of 3 x 3 pixels in its last channel."""
    volume = torch.randn(channels, 256, 256, 5, generator=torch.Generator().manual_seed(0)) * 0.01 + 0.5
    volume[-1, row : row + 3, column : column + 3, 2] += contrast
    return volume


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("contrast", [0.6, -0.6])
@pytest.mark.parametrize(("row", "column"), [(120, 60), (121, 60), (119, 61), (0, 0), (253, 253), (253, 100)])
def test_lesion_that_the_mean_misses_is_seen(row, column, contrast, channels):
    # off the grid of blocks, at least 4 of its 9 pixels lie in one; its slice is the anchor of the next
    volume = with_lesion(row, column, contrast, channels)
    assert InterSliceAnchorFilter(0.025).kept_slices(volume) == [0]
    assert InterSliceAnchorFilter(0.025, guard_mm=3.0).kept_slices(volume) == [0, 2, 3]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 3.0, 4.0), (3.0, 0.5, 4.0)])
def test_noise_cancels_within_a_block_whose_side_is_in_mm(spacing):
    """Stripes a pixel wide, 0.4 above and below: only a block of one pixel along the other axis sees them."""
    volume = torch.zeros(1, 24, 24, 4)
    volume[:, ::2, :, 2] = 0.4
    volume[:, 1::2, :, 2] = -0.4
    kept = InterSliceAnchorFilter(GUARD_ALONE, guard_mm=2.0).kept_slices(spaced(volume, spacing))
    assert kept == ([0, 2, 3] if spacing[0] == 3.0 else [0])


def test_spacing_of_a_tilted_volume():
    angle = np.deg2rad(35)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.8, 2.0, 5.0])
    volume = drifting_volume(3, (1, 20, 21, 16), 3, torch.float32)
    kept = InterSliceAnchorFilter(GUARD_ALONE, -1, 4.1, 80.0).kept_slices(MetaTensor(volume, affine=affine))
    assert kept == plain_loop(volume.numpy(), GUARD_ALONE, 3, (5, 2), 80.0)
    assert 1 < len(kept) < 16


@pytest.mark.parametrize("convert", [lambda v: v, lambda v: v.numpy(), lambda v: v.clone().requires_grad_()])
def test_without_an_affine_the_spacing_is_1_mm(convert):
    volume = drifting_volume(3, (1, 20, 21, 16), 3, torch.float32)
    kept = InterSliceAnchorFilter(GUARD_ALONE, -1, 4.1, 60.0).kept_slices(convert(volume))
    assert kept == plain_loop(volume.numpy(), GUARD_ALONE, 3, (4, 4), 60.0)
    assert 1 < len(kept) < 16


@pytest.mark.parametrize("guard_mm", [1e-300, 1e300])
def test_block_is_at_least_a_pixel_and_at_most_the_slice(guard_mm):
    volume = torch.zeros(1, 6, 5, 3)
    volume[0, 2, 2, 1] = 0.5
    kept = InterSliceAnchorFilter(GUARD_ALONE, guard_mm=guard_mm).kept_slices(volume)
    assert kept == ([0, 1, 2] if guard_mm < 1 else [0])
    assert InterSliceAnchorFilter(GUARD_ALONE, guard_mm=guard_mm).kept_slices(volume + torch.arange(3)) == [0, 1, 2]


@pytest.mark.parametrize("off", [{}, {"guard_mm": None}])
def test_switched_off(off, monkeypatch):
    monkeypatch.setattr(anchor, "guarded_slices", None)
    assert InterSliceAnchorFilter(0.025, **off).kept_slices(with_lesion(120, 60, 0.6)) == [0]
    assert InterSliceAnchorFilter(0.025).guard_mm is None


def test_the_text_none_is_refused():
    with pytest.raises(SettingsError, match="guard_mm must be a finite number above 0 or None, got 'none'"):
        InterSliceAnchorFilter(0.025, guard_mm="none")


def test_with_every_slice_kept_anyway():
    assert InterSliceAnchorFilter(None, guard_mm=3.0).kept_slices(torch.zeros(1, 4, 4, 5)) == [0, 1, 2, 3, 4]


def test_dictionary_form():
    volume = with_lesion(120, 60, 0.6)
    transform = InterSliceAnchorFilterd(["image"], 0.025, guard_mm=3.0, guard_threshold=0.4)
    assert transform({"image": volume})["image"].meta["kept_indices"] == [0, 2, 3]
    transform = InterSliceAnchorFilterd(["image"], 0.025, guard_mm=3.0, guard_threshold=0.7)
    assert transform({"image": volume})["image"].meta["kept_indices"] == [0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("spatial_dim", [0, -1])
def test_non_finite_voxels_are_refused(value, spatial_dim):
    volume = torch.rand(1, 6, 6, 6)
    volume[0, 2, 3, 4] = value
    with pytest.raises(NonFiniteVoxelsError, match="CheckVolume"):
        InterSliceAnchorFilter(0.1, spatial_dim, guard_mm=2.0).kept_slices(volume)


@pytest.mark.parametrize("value", [0, 0.0, -1.0, float("nan"), float("inf"), True, "3", [3.0]])
@pytest.mark.parametrize("name", ["guard_mm", "guard_threshold"])
def test_bad_settings(name, value):
    with pytest.raises(SettingsError, match=name):
        InterSliceAnchorFilter(0.1, **{name: value})


@pytest.mark.parametrize("value", [None, "none"])
def test_guard_threshold_cannot_be_switched_off(value):
    with pytest.raises(SettingsError, match="guard_threshold"):
        InterSliceAnchorFilter(0.1, guard_threshold=value)


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 4), (1, 4, 4, 4, 4)])
def test_slices_must_be_planes(shape):
    with pytest.raises(VolumeShapeError, match="guard_mm"):
        InterSliceAnchorFilter(0.1, guard_mm=2.0).kept_slices(torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_spacing_that_is_not_finite(value):
    affine = torch.eye(4)
    affine[0, 0] = value
    with pytest.raises(SpacingError, match="CheckVolume"):
        InterSliceAnchorFilter(0.1, guard_mm=2.0).kept_slices(MetaTensor(torch.zeros(1, 4, 4, 4), affine=affine))
