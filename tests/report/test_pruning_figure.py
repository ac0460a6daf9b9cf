# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The figure shows the record."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from monai_medpruner.errors import VolumeShapeError
from monai_medpruner.report import pruning_figure
from monai_medpruner.results import SliceRecord, StudyRecord, VolumeGeometry


@pytest.fixture
def record():
    one = SliceRecord.unpruned((2, 3))
    primary = torch.tensor([True, False, False, False, False, True])
    contextual = torch.tensor([False, True, False, False, False, False])
    other = SliceRecord((2, 3), primary, contextual, torch.tensor([0, 1, 1, 1, 1, 5]))
    geometry = VolumeGeometry((40, 60, 4), torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    return StudyRecord("ab12", 4, (0, 2), (one, other), geometry)


def test_every_slice_is_drawn_as_recorded(record):
    figure = pruning_figure(torch.full((1, 40, 60, 4), 0.5), record, columns=2)
    panels = [axes for axes in figure.axes if axes.images]
    titles = [axes.get_title() for axes in panels]
    assert titles == ["slice 1: 6 of 6 tokens", "slice 2: dropped", "slice 3: 3 of 6 tokens", "slice 4: dropped"]
    whole, _, pruned, _ = (axes.images[0].get_array() for axes in panels)
    np.testing.assert_allclose(whole, 0.5)
    np.testing.assert_allclose(pruned[:20, :20], 0.5)  # the first token is selected
    np.testing.assert_allclose(pruned[5, 30], [0.7, 0.54, 0.3])  # the second is contextual
    np.testing.assert_allclose(pruned[:20, 40:], 0.125)  # the third was merged away
    np.testing.assert_allclose(pruned[20:, 40:], 0.5)
    assert [bool(axes.lines) for axes in panels] == [False, True, False, True]


def test_figure_from_saved_files(record, tmp_path):
    """The figure has the same pixels as that of the run."""
    volume = torch.rand(1, 40, 60, 4, generator=torch.Generator().manual_seed(0))
    again = StudyRecord.load(record.save(tmp_path / "ab12.safetensors"))
    first, second = (pruning_figure(volume, one, columns=2) for one in (record, again))
    for axes, other in zip(first.axes, second.axes, strict=True):
        assert axes.get_title() == other.get_title()
        for image, same in zip(axes.images, other.images, strict=True):
            np.testing.assert_array_equal(image.get_array(), same.get_array())


def test_some_slices(record):
    figure = pruning_figure(torch.zeros(3, 8, 8, 4), record, slices=[2])
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["slice 3: 3 of 6 tokens"]


def test_what_was_cropped_away_is_pale(record):
    cropped = replace(record, geometry=replace(record.geometry, crop=((10, 30), (0, 30))))
    figure = pruning_figure(torch.full((1, 40, 60, 4), 0.5), cropped, slices=[2])
    (image,) = (axes.images[0].get_array() for axes in figure.axes if axes.images)
    expected = np.full((40, 60, 3), 0.8)
    expected[10:20, :10] = 0.5  # the first token, in the corner of the part that was encoded
    expected[10:20, 10:20] = [0.7, 0.54, 0.3]
    expected[10:20, 20:30] = expected[20:30, :20] = 0.125
    expected[20:30, 20:30] = 0.5
    np.testing.assert_allclose(image, expected)
    with pytest.raises(VolumeShapeError, match="40 x 60"):
        pruning_figure(torch.zeros(1, 20, 30, 4), cropped)


def test_another_volume_is_refused(record):
    with pytest.raises(VolumeShapeError, match=r"\(C, H, W, 4\)"):
        pruning_figure(torch.zeros(1, 8, 8, 5), record)
