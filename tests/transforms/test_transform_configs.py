# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Every transform is built and run from a bundle configuration, and does not shadow a name of MONAI."""

from __future__ import annotations

import monai.transforms
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Transform

from monai_medpruner import transforms

SETTINGS = {
    "CheckVolume": {},
    "CropBody": {"crop": None, "margin_mm": 2, "square": True},
    "DownsampleSlices": {"pixel_share": 0.5},
    "FindBody": {"crop": "body", "modality": "auto"},
    "HUWindows": {"windows": [[-160, 240], "lung"]},
    "IntensityWindows": {"modality": "auto", "windows": "auto"},
    "InterSliceAnchorFilter": {"threshold": 0.5},
    "JpegSlices": {"jpeg": False},
    "PercentileWindow": {"lower": 1, "upper": 99},
    "SelectSlices": {"rule": {"name": "evs", "pruning_rate": 0.5}, "max_slices": 4},
    "SliceLimit": {"max_slices": 4, "rule": "medgemma"},
    "SliceMinMax": {},
    "SlicePlane": {"plane": "acquired", "orientation": "as_stored", "slice_order": "position"},
    "SliceRange": {"slices": "2:6"},
}


def build(name: str, **settings):
    parser = ConfigParser({"transform": {"_target_": f"monai_medpruner.transforms.{name}", **settings}})
    return parser.get_parsed_content("transform")


@pytest.fixture
def volume() -> MetaTensor:
    return MetaTensor(torch.linspace(-1000, 1000, 8 * 7 * 9).reshape(1, 8, 7, 9))


@pytest.mark.parametrize("name", SETTINGS)
def test_array_and_dictionary_form_agree(name, volume):
    array = build(name, **SETTINGS[name])
    dictionary = build(f"{name}d", keys="image", **SETTINGS[name])
    assert isinstance(array, Transform)
    assert isinstance(dictionary, MapTransform)
    assert isinstance(dictionary, InvertibleTransform) is isinstance(array, InvertibleTransform)
    expected, out = array(volume), dictionary({"image": volume})["image"]
    assert torch.equal(out.as_tensor(), expected.as_tensor())
    assert out.meta.keys() == expected.meta.keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_aliases_and_names(name):
    dictionary = getattr(transforms, f"{name}d")
    assert getattr(transforms, f"{name}D") is getattr(transforms, f"{name}Dict") is dictionary
    for form in (name, f"{name}d", f"{name}D", f"{name}Dict"):
        assert form in transforms.__all__
        assert not hasattr(monai.transforms, form)
