# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""HU windows: values, presets, and the refusal of what is not in Hounsfield units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, set_track_meta

from monai_medpruner.errors import IntensityUnitsError, SettingsError, VolumeShapeError
from monai_medpruner.transforms import HUWindows, HUWindowsd


def ct(dtype: torch.dtype = torch.float32, **meta) -> MetaTensor:
    values = torch.linspace(-1500, 3000, 4 * 5 * 6).reshape(1, 4, 5, 6).to(dtype)
    return MetaTensor(values, affine=torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])), meta=meta)


def windowed(volume: torch.Tensor, pairs: list[tuple[float, float]]) -> np.ndarray:
    x = volume[0].to(torch.float64).numpy()
    return np.stack([np.clip((x - low) / (high - low), 0, 1) for low, high in pairs])


@pytest.mark.parametrize(
    ("windows", "pairs"),
    [
        ("soft_tissue", [(-160, 240)]),
        ("lung", [(-1350, 150)]),
        ("bone", [(-500, 1300)]),
        ("brain", [(0, 80)]),
        ("mediastinum", [(-125, 225)]),
        ("medgemma", [(-1024, 1024), (-135, 215), (0, 80)]),
        (["lung", "bone"], [(-1350, 150), (-500, 1300)]),
        ([[-100, 100.5]], [(-100, 100.5)]),
        ([(-1, 1), "medgemma"], [(-1, 1), (-1024, 1024), (-135, 215), (0, 80)]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16, torch.int32])
def test_values(windows, pairs, dtype):
    image = ct(dtype, modality="CT")
    before = image.as_tensor().clone()
    out = HUWindows(windows)(image)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), windowed(image.as_tensor(), pairs), atol=1e-6)
    assert torch.equal(image.as_tensor(), before)
    assert torch.equal(out.affine, image.affine)
    assert out.meta["modality"] == "CT"


@pytest.mark.parametrize("convert", [lambda v: v.as_tensor(), lambda v: v.as_tensor().numpy()])
def test_plain_containers(convert):
    out = HUWindows("brain")(convert(ct()))
    assert isinstance(out, MetaTensor)
    np.testing.assert_allclose(out.numpy(), windowed(ct().as_tensor(), [(0, 80)]), atol=1e-6)


def test_without_metadata_tracking():
    set_track_meta(False)
    try:
        assert not isinstance(HUWindows()(ct()), MetaTensor)
    finally:
        set_track_meta(True)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (ct(modality="MR"), "modality MR"),
        (ct(modality="PT"), "modality PT"),
        (ct() + 1500, "start at 0"),
        (ct(modality="CT") + 2000, "start at 500"),
        (torch.rand(1, 3, 3, 3) + 1, "start at 1"),
    ],
)
def test_not_hounsfield_units(image, found):
    with pytest.raises(IntensityUnitsError, match=found):
        HUWindows()(image)
    out = HUWindows(assume_hu=True)(image)
    np.testing.assert_allclose(out.numpy(), windowed(torch.as_tensor(np.asarray(image)), [(-160, 240)]), atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (1, 3, 3, 0)])
def test_not_one_channel_of_voxels(shape):
    with pytest.raises(VolumeShapeError, match="one channel"):
        HUWindows()(torch.zeros(shape) - 1)


@pytest.mark.parametrize(
    "windows",
    [
        *("liver", [], ["soft_tissue", "x"], None, 5),
        *([-160, 240], [(1, 1)], [(2, 1)], [(0, float("inf"))], [(0, 1, 2)], [("a", "b")], [(True, 2)]),
    ],
)
def test_bad_windows(windows):
    with pytest.raises(SettingsError, match="window"):
        HUWindows(windows)


def test_dictionary_form():
    out = HUWindowsd(["image", "absent"], "medgemma", allow_missing_keys=True)({"image": ct(), "label": 1})
    assert out["image"].shape == (3, 4, 5, 6)
    assert out["label"] == 1
    with pytest.raises(IntensityUnitsError):
        HUWindowsd("image")({"image": ct(modality="MR")})
    assert HUWindowsd("image", assume_hu=True)({"image": ct(modality="MR")})["image"].shape == (1, 4, 5, 6)
