# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A description holds every argument of a transform, and a stage leaves one in the volumes it returns."""

from __future__ import annotations

import functools
import json
from inspect import signature

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, Lambda, OneOf, ScaleIntensity, ScaleIntensityd, Spacing, Transform

from monai_medpruner import transforms
from monai_medpruner.transforms import CheckVolumed, SliceRanged, TimedCompose, describe_transform

# array form -> argument -> another value than the default
OTHER = {
    "CheckVolume": {},
    "HUWindows": {"windows": [[-160, 200], "lung"], "assume_hu": True},
    "IntensityWindows": {"modality": "ct", "windows": "medgemma", "assume_hu": True},
    "InterSliceAnchorFilter": {
        "threshold": 0.5,
        "spatial_dim": 0,
        "guard_mm": 5,
        "guard_threshold": 0.5,
        "max_gap_mm": 10,
    },
    "CropBody": {"crop": None, "margin_mm": 8.0, "square": True},
    "DownsampleSlices": {"pixel_share": 0.5},
    "FindBody": {"crop": None, "modality": "ct", "assume_hu": True},
    "JpegSlices": {"jpeg": True},
    "LoadVolume": {"series_uid": "1.2.3", "series_part": 2, "gray_slices": True, "drop_odd_slices": True},
    "PercentileWindow": {"lower": 1, "upper": 99},
    "SelectSlices": {"rule": "evenly_spaced", "max_slices": 4, "spatial_dim": 0},
    "SliceLimit": {"max_slices": 4, "rule": "medgemma", "spatial_dim": 0, "ratio": 0.5, "max_gap_mm": 8.0},
    "SliceMinMax": {},
    "SlicePlane": {"plane": "axial", "orientation": "as_stored", "slice_order": "instance_number"},
    "SliceRange": {"slices": "2:6", "spatial_dim": 0},
}
#: arguments that do not change a volume, and so are no part of a study
UNDESCRIBED = {"limits"}
KEYS = {"keys": ["image", "label"], "ref_key": "image", "allow_missing_keys": True}


def every_form():
    for name, other in OTHER.items():
        yield getattr(transforms, name), name, {}, other
        dictionary = getattr(transforms, f"{name}d")
        own = {key: value for key, value in KEYS.items() if key in signature(dictionary).parameters}
        yield dictionary, name, {"keys": ["label", "image"]}, {**other, **own}


def test_no_transform_is_left_out():
    made = {form for form, *_ in every_form()}
    exported = [getattr(transforms, name) for name in transforms.__all__]
    forms = {form for form in exported if isinstance(form, type) and issubclass(form, Transform)}
    assert forms == {*made, TimedCompose}


@pytest.mark.parametrize(("form", "name", "required", "other"), every_form())
def test_changing_any_argument_changes_the_description(form, name, required, other):
    assert signature(form).parameters.keys() - UNDESCRIBED == {**required, **other}.keys()
    default = describe_transform(form(**required))
    assert default["name"] == name
    assert json.loads(json.dumps(default)) == default
    for argument, value in other.items():
        changed = describe_transform(form(**{**required, argument: value}))
        differing = {key for key in default["arguments"] if changed["arguments"][key] != default["arguments"][key]}
        # the reference key is the first key, unless another one is given
        assert differing == {argument} | ({"ref_key"} if argument == "keys" and "ref_key" in other else set())


@pytest.mark.parametrize(("form", "name", "required", "other"), every_form())
def test_description_makes_an_equal_transform(form, name, required, other):
    described = describe_transform(form(**{**required, **other}))
    assert describe_transform(form(**described["arguments"])) == described


def test_compositions():
    stage = TimedCompose("filter", [SliceRanged("image", "2:6"), CheckVolumed("image")])
    description = describe_transform(Compose([stage, ScaleIntensity(0.0, 2.0)]))
    assert description == [
        {
            "stage": "filter",
            "transforms": [
                {
                    "name": "SliceRange",
                    "arguments": {
                        "keys": ["image"],
                        "slices": "2:6",
                        "spatial_dim": -1,
                        "ref_key": "image",
                        "allow_missing_keys": False,
                    },
                },
                {"name": "CheckVolume", "arguments": {"keys": ["image"], "allow_missing_keys": False}},
            ],
        },
        describe_transform(ScaleIntensity(0.0, 2.0)),
    ]


def double(x):
    return 2 * x


def test_transforms_of_others():
    scale = describe_transform(ScaleIntensity(0.0, 2.0))
    assert scale["name"] == "ScaleIntensity"
    assert (scale["arguments"]["minv"], scale["arguments"]["maxv"]) == (0.0, 2.0)
    assert describe_transform(ScaleIntensityd("image"))["arguments"]["keys"] == ["image"]
    assert describe_transform(double) == {"name": "double", "arguments": {}}
    assert describe_transform(Lambda(double))["arguments"]["func"] == {"name": "double", "arguments": {}}
    assert describe_transform(OneOf([ScaleIntensity()]))["name"] == "OneOf"
    assert describe_transform(Spacing((1.0, 1.0, 2.0)))["arguments"]["pixdim"] == [1.0, 1.0, 2.0]
    for transform in (functools.partial(double, 1), ScaleIntensity(np.float32("inf")), Spacing(torch.ones(3))):
        text = json.dumps(describe_transform(transform), allow_nan=False)
        assert " at 0x" not in text


def test_a_stage_is_recorded_and_taken_back():
    image = MetaTensor(torch.rand(1, 4, 4, 6))
    load, keep = TimedCompose("load", CheckVolumed("image")), TimedCompose("filter", SliceRanged("image", "2:6"))
    loaded = load({"image": image, "number": 3})
    assert "preprocessing" not in image.meta  # CheckVolume returns the caller's own volume
    out = keep(loaded)
    assert out["image"].meta["preprocessing"] == [describe_transform(load), describe_transform(keep)]
    assert [stage for stage, _ in out["image"].meta["seconds"]] == ["load", "filter"]
    assert all(spent > 0 for _, spent in out["image"].meta["seconds"])
    assert loaded["image"].meta["preprocessing"] == [describe_transform(load)]
    restored = Compose([load, keep]).inverse(out)
    assert not {"preprocessing", "seconds"} & set(restored["image"].meta)
    assert restored["image"].shape == image.shape
    separate = decollate_batch(list_data_collate([out, keep(load({"image": image, "number": 1}))]))
    assert [len(item["image"].meta["preprocessing"]) for item in separate] == [2, 2]


def test_a_stage_that_was_run_in_part_says_so():
    stage = TimedCompose("filter", [CheckVolumed("image"), SliceRanged("image", "2:6")])
    half = stage({"image": MetaTensor(torch.rand(1, 4, 4, 6))}, end=1)
    assert [entry["name"] for entry in half["image"].meta["preprocessing"][0]["transforms"]] == ["CheckVolume"]
