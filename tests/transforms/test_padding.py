# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Padding moves no window, and says nothing about units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.testing import assert_allclose

from monai_medpruner.errors import IntensityUnitsError
from monai_medpruner.transforms import HUWindows, IntensityWindows, LoadVolume, PercentileWindow, SliceMinMax

GENERATOR = np.random.default_rng(0)
CIRCLE = ((np.arange(40)[:, None] - 20) / 20) ** 2 + ((np.arange(50)[None] - 25) / 25) ** 2 < 1
CIRCLE = np.broadcast_to(CIRCLE[..., None], (40, 50, 6))


def tissue(low, high):
    """Return voxels ``(40, 50, 6)`` between two values."""
    return GENERATOR.uniform(low, high, CIRCLE.shape).round().astype(np.float32)


def volume(voxels, outside=None, **meta):
    """Return a volume with a value outside the circle, or none."""
    filled = voxels if outside is None else np.where(CIRCLE, voxels, np.float32(outside))
    return MetaTensor(torch.from_numpy(filled)[None], meta=meta)


def expected_percentile(voxels):
    low, high = np.percentile(voxels[CIRCLE], [0.5, 99.5])
    return np.where(CIRCLE, np.clip((voxels - low) / (high - low), 0, 1), 0)


@pytest.mark.parametrize("padding", [-32768.0, -5000.0, 65535.0])
def test_percentiles_are_those_of_the_tissue(padding):
    voxels = tissue(0, 1700)
    out = PercentileWindow()(volume(voxels, padding))
    assert_allclose(out[0].numpy(), expected_percentile(voxels), atol=1e-6)
    assert [f"are {padding:g}, which looks like padding" in note for note in out.meta["notes"]] == [True]


@pytest.mark.parametrize("padding", [-100.0, 900.0])
def test_stated_padding_is_left_out_wherever_it_lies(padding):
    voxels = tissue(0, 1700)
    voxels[voxels == padding] += 1
    out = PercentileWindow()(volume(voxels, padding, padding=[padding, padding]))
    assert_allclose(out[0].numpy(), expected_percentile(voxels), atol=1e-6)
    assert ["the header's padding" in note for note in out.meta["notes"]] == [True]


def test_stated_range_of_padding():
    voxels = tissue(0, 1700)
    image = volume(voxels, -2000.0, padding=[-2000.0, -1990.0])
    image[0, 0, 0, 0] = -1995.0
    assert_allclose(PercentileWindow()(image)[0].numpy(), expected_percentile(voxels), atol=1e-6)


@pytest.mark.parametrize("background", [0.0, -500.0])
def test_background_near_the_tissue_counts(background):
    voxels = tissue(0, 1700)
    image = volume(voxels, background)
    low, high = np.percentile(image[0].numpy(), [0.5, 99.5])
    out = PercentileWindow()(image)
    assert_allclose(out[0].numpy(), np.clip((image[0].numpy() - low) / (high - low), 0, 1), atol=1e-6)
    assert not out.meta.get("notes")


def test_single_outlier_is_no_padding():
    image = volume(tissue(0, 1700))
    image[0, 3, 3, 3] = -32768.0
    assert not PercentileWindow()(image).meta.get("notes")


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_minimum_and_maximum_of_each_slice_are_those_of_the_tissue(modality):
    voxels = tissue(-1000, 1500) if modality == "CT" else tissue(0, 1700)
    image = volume(voxels, -2000.0 if modality == "CT" else -32768.0, modality=modality)
    image[..., 2] = image[0, 0, 0, 0]  # a slice of padding alone
    out = SliceMinMax()(image)
    for index in (0, 1, 3, 4, 5):
        inside = voxels[..., index][CIRCLE[..., 0]]
        scaled = (voxels[..., index] - inside.min()) / (inside.max() - inside.min())
        assert_allclose(out[0, ..., index].numpy(), np.where(CIRCLE[..., 0], scaled, 0), atol=1e-6)
    assert not out[..., 2].any()


def test_high_padding_is_black_in_hu_windows():
    voxels = tissue(-1000, 1500)
    out = HUWindows("bone")(volume(voxels, 3000.0, modality="CT", padding=[3000.0, 3000.0]))
    assert not out[0].numpy()[~CIRCLE].any()
    assert_allclose(out[0].numpy()[CIRCLE], np.clip((voxels[CIRCLE] + 500) / 1800, 0, 1), atol=1e-6)


@pytest.mark.parametrize("padding", [None, -2000.0, -3024.0])
def test_units_are_judged_without_padding(padding):
    hu = tissue(-1000, 1500)
    assert "was taken for CT in HU" in IntensityWindows()(volume(hu, padding)).meta["notes"][0]
    stored = tissue(24, 2500)
    with pytest.raises(IntensityUnitsError, match="do not look like Hounsfield units"):
        IntensityWindows()(volume(stored, padding))


def test_phase_is_no_ct():
    with pytest.raises(IntensityUnitsError, match="do not look like Hounsfield units"):
        IntensityWindows()(volume(tissue(-4096, 4095)))


def test_blurred_edge_of_padding_is_no_gas():
    stored = np.where(CIRCLE, tissue(24, 2500), np.float32(-2000))
    stored[0, 20:22] = -900.0  # resampled: values between padding and tissue
    with pytest.raises(IntensityUnitsError, match="start at -2000"):
        IntensityWindows()(MetaTensor(torch.from_numpy(stored)[None]))


def test_unscaled_ct_with_padding_is_refused(shared_case):
    image = LoadVolume()(shared_case("05_nifti_unscaled_ct_with_padding.py") / "ct.nii.gz")
    with pytest.raises(IntensityUnitsError, match="start at -2000"):
        IntensityWindows()(image)


def test_mr_with_padding_looks_as_without(shared_case):
    folder = shared_case("06_mr_pixel_padding.py")
    image = LoadVolume()(folder)
    out = IntensityWindows()(image)
    assert float(out.median()) == pytest.approx(0.11, abs=0.01)
    assert any("padding" in note for note in out.meta["notes"])
