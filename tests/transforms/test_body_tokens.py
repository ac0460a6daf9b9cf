# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Which tokens show the body: voxel by voxel, through crop, selection and smaller slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_medpruner.data.collate import collate_volumes
from monai_medpruner.errors import VolumeShapeError
from monai_medpruner.transforms import CropBody, DownsampleSlices, FindBody, HUWindows, SliceRange
from monai_medpruner.transforms.body_mask import find_body
from monai_medpruner.transforms.body_tokens import body_tokens

GRIDS = [(6, 8), (5, 7), (1, 1), (12, 9)]


def ct(air_slices: int = 0) -> MetaTensor:
    """Two legs apart in air, 2 x 2 x 3 mm."""
    voxels = torch.full((1, 120, 160, 20), -1000.0)
    row, column = torch.meshgrid(torch.arange(120.0), torch.arange(160.0), indexing="ij")
    for center in (40, 110):
        voxels[0, ((row - 60) ** 2 + (column - center) ** 2 < 22**2)] = 40.0
    voxels[..., 20 - air_slices :] = -1000.0
    return MetaTensor(voxels, affine=torch.diag(torch.tensor([2.0, 2, 3, 1], dtype=torch.float64)))


def expected(volume: MetaTensor, index: int, box, grid) -> np.ndarray:
    """Tokens one of whose voxels, or a voxel of the coarse grid next to it, is body; voxel by voxel."""
    body, steps = find_body(volume.as_tensor()[0], (2.0, 2.0, 3.0))
    cells = body[index // steps[2]]
    grown = np.zeros_like(cells)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            for r, c in np.argwhere(cells):
                if 0 <= r + down < cells.shape[0] and 0 <= c + right < cells.shape[1]:
                    grown[r + down, c + right] = True
    fine = grown.repeat(steps[0], 0).repeat(steps[1], 1)[:120, :160]
    (top, bottom), (left, right_) = box
    part = fine[top:bottom, left:right_]
    tokens = np.zeros(grid, dtype=bool)
    for r in range(grid[0]):
        for c in range(grid[1]):
            rows = slice(int(np.floor(r * part.shape[0] / grid[0])), int(np.ceil((r + 1) * part.shape[0] / grid[0])))
            columns = slice(int(np.floor(c * part.shape[1] / grid[1])), int(np.ceil((c + 1) * part.shape[1] / grid[1])))
            tokens[r, c] = part[rows, columns].any()
    return tokens.ravel()


@pytest.mark.parametrize("grid", GRIDS)
def test_whole_slices(grid):
    volume = HUWindows()(FindBody("body_patches")(ct()))
    masks = body_tokens(volume.meta, (120, 160), [grid] * 20)
    for index in (0, 7, 19):
        assert np.array_equal(masks[index].numpy(), expected(ct(), index, ((0, 120), (0, 160)), grid))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("share", [None, 0.3])
def test_cropped_selected_and_shrunk(grid, share):
    steps = [FindBody("body_patches"), HUWindows(), SliceRange("4:9"), CropBody("body_patches", margin_mm=10)]
    volume = Compose([*steps, DownsampleSlices(share)])(ct())
    crop = volume.meta["crop"]
    masks = body_tokens(volume.meta, tuple(volume.shape[1:3]), [grid] * 5)
    assert len(masks) == 5
    for place, index in enumerate(range(4, 9)):
        assert np.array_equal(masks[place].numpy(), expected(ct(), index, crop, grid))
    assert grid == (1, 1) or masks[0].float().mean() < 1


def test_a_slice_without_body_keeps_all():
    volume = FindBody("body_patches")(ct(air_slices=8))
    masks = body_tokens(volume.meta, (120, 160), [(6, 8)] * 20)
    assert not masks[0].all()
    assert masks[19].all()


@pytest.mark.parametrize("crop", ["body", None])
def test_nothing_is_recorded_unless_asked_for(crop):
    volume = FindBody(crop)(ct())
    assert "body_mask" not in volume.meta
    assert body_tokens(volume.meta, (120, 160), [(2, 2)] * 20) is None


def test_in_a_batch():
    volumes = [FindBody("body_patches")(one) for one in (ct(), ct(4))]
    batch = collate_volumes([{"image": one} for one in volumes])["image"]
    assert batch.shape[0] == 2


def test_a_volume_that_was_resampled_since():
    volume = FindBody("body_patches")(ct())
    with pytest.raises(VolumeShapeError, match="slices of another size"):
        body_tokens(volume.meta, (60, 160), [(2, 2)] * 20)
