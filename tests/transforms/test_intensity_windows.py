# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Percentile scaling, and the choice between it and HU windows."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_medpruner.errors import IntensityUnitsError, SettingsError, VolumeShapeError, ZeroVarianceError
from monai_medpruner.transforms import (
    HUWindows,
    IntensityWindows,
    IntensityWindowsd,
    PercentileWindow,
    PercentileWindowd,
    SliceMinMax,
)

RNG = np.random.default_rng(0)
HU = RNG.integers(-1000, 2000, (1, 9, 8, 7)).astype(np.int16)
HU[0, 1, 2, 3] = -1000
MR = RNG.integers(0, 900, (1, 9, 8, 7)).astype(np.int16)


def image(values: np.ndarray, modality: str | None = None) -> MetaTensor:
    return MetaTensor(torch.as_tensor(values), meta={"notes": ["read"]} | ({"modality": modality} if modality else {}))


def by_percentiles(values: np.ndarray, lower: float = 0.5, upper: float = 99.5) -> np.ndarray:
    low, high = np.percentile(values.astype(np.float64), [lower, upper])
    return np.clip((values - low) / (high - low), 0, 1)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("percentiles", [(0.5, 99.5), (0, 100), (10, 50)])
def test_percentile_values(dtype, percentiles):
    values = torch.as_tensor(MR).to(dtype)
    out = PercentileWindow(*percentiles)(values)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), by_percentiles(values.to(torch.float64).numpy(), *percentiles), atol=1e-5)


def test_percentiles_of_a_volume_beyond_the_limit_of_torch_quantile():
    values = torch.arange(2**24 + 2**20, dtype=torch.int32).remainder_(1001).reshape(1, 16, -1, 1024)
    out = PercentileWindow(10, 90)(values)
    assert out[0, 0, 0, [0, 100, 500, 900, 1000]].tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-6)


@pytest.mark.parametrize("percentiles", [(50, 50), (60, 40), (-1, 99), (1, 101)])
def test_bad_percentiles(percentiles):
    with pytest.raises(SettingsError, match="percentiles must satisfy"):
        PercentileWindow(*percentiles)


def test_almost_constant_volume():
    values = torch.zeros(1, 20, 20, 20)
    values[0, 3, 3, 3] = 1
    with pytest.raises(ZeroVarianceError, match="nearly all voxels have the same value"):
        PercentileWindow()(values)


@pytest.mark.parametrize(
    ("modality", "windows", "values", "recorded", "expected", "noted"),
    [
        ("auto", "auto", HU, "CT", "soft_tissue", False),
        ("auto", "auto", MR, "MR", "percentile", False),
        ("auto", "auto", HU, "MR", "percentile", False),
        ("auto", "auto", HU, None, "soft_tissue", True),
        ("auto", "lung", HU, None, "lung", True),
        ("auto", [(-5, 5)], HU, "CT", [(-5, 5)], False),
        ("auto", "percentile", MR, None, "percentile", False),
        ("auto", "percentile", MR, "US", "percentile", False),
        ("ct", "auto", HU, None, "soft_tissue", False),
        ("mr", "auto", MR, None, "percentile", False),
        ("mr", "percentile", HU, "CT", "percentile", False),
        ("ct", "percentile", HU, "CT", "percentile", False),
        ("auto", "slice_minmax", MR, None, "slice_minmax", False),
        ("auto", "slice_minmax", HU, "CT", "slice_minmax", False),
        ("mr", "slice_minmax", MR, "US", "slice_minmax", False),
    ],
)
def test_choice(modality, windows, values, recorded, expected, noted):
    source = image(values, recorded)
    out = IntensityWindows(modality, windows)(source)
    own = {"percentile": PercentileWindow, "slice_minmax": SliceMinMax}
    direct = own[expected]() if expected in ("percentile", "slice_minmax") else HUWindows(expected)
    assert torch.equal(out.as_tensor(), direct(values).as_tensor())
    note = "The file names no modality; voxels reach down to -1000, so it was taken for CT in HU."
    assert out.meta["notes"] == (["read", note] if noted else ["read"])
    assert source.meta["notes"] == ["read"]


@pytest.mark.parametrize(
    ("modality", "windows", "values", "recorded", "found"),
    [
        ("auto", "auto", MR, None, r"names no modality, and its voxels, which start at 0, .*--modality mr"),
        ("auto", "auto", HU.clip(-200, None), None, "start at -200"),
        ("auto", "auto", HU, "US", "modality is US"),
        ("auto", "soft_tissue", MR, "MR", "HU windows were asked for MR"),
        ("mr", "medgemma", HU, None, "HU windows were asked for MR"),
        ("mr", [(-5, 5)], HU, None, "HU windows were asked for MR"),
        ("ct", "auto", MR, None, "start at 0"),
        ("ct", "auto", HU, "MR", "modality MR"),
    ],
)
def test_refusal(modality, windows, values, recorded, found):
    with pytest.raises(IntensityUnitsError, match=found):
        IntensityWindows(modality, windows)(image(values, recorded))


@pytest.mark.parametrize(
    ("modality", "windows", "recorded"),
    [("auto", "auto", None), ("ct", "auto", "MR"), ("auto", "soft_tissue", "MR"), ("auto", "auto", "US")],
)
def test_assume_hu_overrules_the_refusal(modality, windows, recorded):
    out = IntensityWindows(modality, windows, assume_hu=True)(image(MR, recorded))
    assert torch.equal(out.as_tensor(), HUWindows(assume_hu=True)(MR).as_tensor())


@pytest.mark.parametrize("settings", [{"modality": "CT"}, {"modality": "pet"}, {"windows": "liver"}, {"windows": None}])
def test_bad_settings(settings):
    with pytest.raises(SettingsError):
        IntensityWindows(**settings)


@pytest.mark.parametrize(
    "transform",
    [PercentileWindow(), *(IntensityWindows(windows=windows) for windows in ("auto", "percentile", "slice_minmax"))],
)
def test_several_channels(transform):
    with pytest.raises(VolumeShapeError, match="one channel"):
        transform(torch.rand(2, 4, 4, 4) - 500)


@pytest.mark.parametrize(("windows", "end"), [("unit", 1.0), ("uint8", 255.0)])
@pytest.mark.parametrize("modality", ["auto", "ct", "mr"])
def test_stored_range(modality, windows, end):
    values = RNG.random((1, 4, 3, 5)).astype(np.float32) * end
    values[0, 0, 0, :2] = 0, end
    recorded = MetaTensor(torch.as_tensor(values), meta={"intensity": windows, "modality": "US"})
    for out in (IntensityWindows(modality, windows)(values), IntensityWindows(modality)(recorded)):
        np.testing.assert_allclose(out.numpy(), values / end, atol=1e-7)
    assert recorded.meta["intensity"] == windows
    for outside in (-0.01, end * 1.01):
        values[0, 1, 1, 1] = outside
        with pytest.raises(IntensityUnitsError, match="choose the windows"):
            IntensityWindows(modality, windows)(values)


def test_a_choice_overrules_the_recorded_range():
    source = image(HU, "CT")
    source.meta["intensity"] = "unit"
    for transform in (IntensityWindows(assume_hu=True), IntensityWindows(windows="soft_tissue")):
        assert torch.equal(transform(source).as_tensor(), HUWindows()(HU).as_tensor())
    with pytest.raises(IntensityUnitsError, match="-1000"):
        IntensityWindows()(source)


def test_dictionary_forms():
    data = {"ct": image(HU, "CT"), "mr": image(MR, "MR"), "label": 1}
    out = IntensityWindowsd(["ct", "mr", "absent"], allow_missing_keys=True)(data)
    assert torch.equal(out["ct"].as_tensor(), HUWindows()(HU).as_tensor())
    assert torch.equal(out["mr"].as_tensor(), PercentileWindow()(MR).as_tensor())
    assert out["label"] == 1
    scaled = PercentileWindowd("ct", 5, 95)(data)["ct"]
    assert torch.equal(scaled.as_tensor(), PercentileWindow(5, 95)(HU).as_tensor())
    with pytest.raises(IntensityUnitsError):
        IntensityWindowsd("mr", windows="lung")(data)


def test_real_volumes(shared_data):
    ct = nibabel.load(shared_data("ct_torso_nifti/ct_small.nii.gz")).get_fdata()[None]
    mr = nibabel.load(shared_data("mr_torso_nifti/mr_small.nii.gz")).get_fdata()[None]
    np.testing.assert_allclose(IntensityWindows()(ct).numpy(), np.clip((ct + 160) / 400, 0, 1), atol=1e-6)
    with pytest.raises(IntensityUnitsError, match="--modality mr"):
        IntensityWindows()(mr)
    np.testing.assert_allclose(IntensityWindows("mr")(mr).numpy(), by_percentiles(mr), atol=1e-5)
