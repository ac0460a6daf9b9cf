# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What travels between the stages comes out as it went in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_medpruner.archive.transit import StudyInTransit, levels_of_volume, volume_of_levels
from monai_medpruner.errors import EngineError, IntensityUnitsError

ITEMS = [{"id": "1", "image": "a.nii", "question": "a?", "prompt": "a?"}]


def test_every_gray_level_survives():
    """The encoder rounds 255 times the intensity; it must find each of the 256 levels again."""
    levels = np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)
    voxels = volume_of_levels(levels, {})
    assert voxels.shape == (1, 8, 8, 4)
    assert voxels.dtype == torch.float32
    rounded = np.rint(voxels.numpy().astype(np.float32) * np.float32(255)).astype(np.uint8)
    np.testing.assert_array_equal(rounded.transpose(3, 0, 1, 2), levels)
    np.testing.assert_array_equal(levels_of_volume(voxels), levels)


def test_levels_of_any_intensity():
    """Against the rounding of numpy; three channels, and padding behind the kept slices."""
    voxels = np.random.default_rng(0).random((3, 5, 7, 6), dtype=np.float32)
    volume = MetaTensor(torch.from_numpy(voxels), meta={"kept_indices": [2, 3, 5, 8]})
    expected = np.rint(voxels[..., :4] * np.float32(255)).astype(np.uint8).transpose(3, 0, 1, 2)
    np.testing.assert_array_equal(levels_of_volume(volume), expected)


def test_intensities_that_are_no_gray_levels_are_refused():
    with pytest.raises(IntensityUnitsError):
        levels_of_volume(torch.full((1, 4, 4, 2), 1.5))


def test_a_row():
    levels = np.random.default_rng(1).integers(0, 256, (3, 1, 4, 4), dtype=np.uint8)
    study = StudyInTransit(ITEMS, levels, {"kept_indices": [0, 4, 9], "affine": torch.eye(4)}, error=("E", "text"))
    again = StudyInTransit.from_row(study.to_row())
    np.testing.assert_array_equal(again.levels, levels)
    assert again.items == ITEMS
    assert again.error == ("E", "text")
    assert again.meta["kept_indices"] == [0, 4, 9]
    torch.testing.assert_close(again.meta["affine"], torch.eye(4))


def test_a_row_without_levels():
    study = StudyInTransit(ITEMS, studies=(b"\0study", ("E", "text")), ends_run=EngineError("gone"))
    again = StudyInTransit.from_row(study.to_row())
    assert again.levels is None
    assert again.studies == study.studies
    assert isinstance(again.ends_run, EngineError)
    assert str(again.ends_run) == "gone"
