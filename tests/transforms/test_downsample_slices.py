# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Smaller slices: against PIL's resize, never above the share, and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from PIL import Image

from monai_medpruner.errors import SettingsError, VolumeShapeError
from monai_medpruner.transforms import DownsampleSlices, SliceRange


def volume(shape=(1, 48, 64, 5), **meta) -> MetaTensor:
    voxels = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    return MetaTensor(voxels, affine=torch.diag(torch.tensor([2.0, 1, 4, 1], dtype=torch.float64)), meta=meta)


def test_each_slice_is_pils_resize_in_float():
    whole = volume()
    small = DownsampleSlices(0.25)(whole)
    assert small.shape == (1, 24, 32, 5)
    for place in range(5):
        image = Image.fromarray(np.ascontiguousarray(whole[0, :, :, place].numpy()))
        expected = np.asarray(image.resize((32, 24), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(small[0, :, :, place].numpy(), expected, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(2, 200), columns=st.integers(2, 200), share=st.floats(0.001, 1))
def test_never_above_the_share(rows, columns, share):
    _, height, width, _ = DownsampleSlices(share)(torch.zeros(1, rows, columns, 1)).shape
    assert height * width <= max(share * rows * columns * (1 + 1e-6), max(rows, columns) * share**0.5 + 1, 1)
    assert height >= max(1, int(rows * share**0.5))
    assert width >= max(1, int(columns * share**0.5))


def test_geometry():
    """Corners of the volume stay where they are; the whole volume's geometry stays on record."""
    whole = volume(slice_positions_mm=[0.0, 4, 8, 12, 16])
    small = DownsampleSlices(0.25)(SliceRange("1:4")(whole))
    assert small.meta["uncropped_size"] == [48, 64]
    assert small.meta["kept_indices"] == [1, 2, 3]
    assert torch.equal(torch.tensor(small.meta["source_affine"], dtype=torch.float64), whole.affine)
    for corner, small_corner in (([-0.5, -0.5], [-0.5, -0.5]), ([47.5, 63.5], [23.5, 31.5])):
        there = whole.affine @ torch.tensor([*corner, 1, 1], dtype=torch.float64)
        here = small.affine @ torch.tensor([*small_corner, 0, 1], dtype=torch.float64)
        torch.testing.assert_close(here, there)
    alone = DownsampleSlices(0.25)(whole)
    assert alone.meta["kept_indices"] == list(range(5))
    assert alone.meta["source_depth"] == 5


def test_inverse():
    whole = volume()
    transform = DownsampleSlices(0.25)
    small = transform(whole)
    labels = MetaTensor((small.as_tensor() > 0.5).to(torch.uint8)).copy_meta_from(small)
    restored = transform.inverse(small.clone())
    assert restored.shape == whole.shape
    assert torch.equal(restored.affine, whole.affine)
    assert "uncropped_size" not in restored.meta
    assert restored.applied_operations == []
    grown = transform.inverse(labels.clone())
    expected = labels.as_tensor().repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(grown.as_tensor(), expected)


@pytest.mark.parametrize("share", [None, 1, 1.0])
def test_nothing_to_do(share):
    whole = volume()
    transform = DownsampleSlices(share)
    assert transform(whole) is whole
    assert transform.inverse(whole) is whole


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "0.5", True, float("nan")])
def test_settings_outside_their_range(wrong):
    with pytest.raises(SettingsError, match="pixel_share must lie"):
        DownsampleSlices(wrong)


def test_a_volume_without_slices():
    with pytest.raises(VolumeShapeError, match="three spatial axes"):
        DownsampleSlices(0.5)(torch.zeros(1, 4, 4))
