# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Ranges of slices as text; metadata and inverse are tested with the other selections."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms import SliceRange, SliceRanged


def volume() -> MetaTensor:
    return MetaTensor(torch.arange(10.0).expand(1, 3, 4, 10), meta={"notes": ["read"]})


@pytest.mark.parametrize(
    ("slices", "kept"),
    [
        (None, range(10)),
        ("all", range(10)),
        (":", range(10)),
        ("3:6", range(3, 6)),
        (" 8: ", range(8, 10)),
        (":-7", range(3)),
        ("-2:", range(8, 10)),
    ],
)
def test_range_text(slices, kept):
    out = SliceRange(slices)(volume())
    assert out.meta["kept_indices"] == list(kept)
    assert out.meta["notes"] == ["read"]


def test_clipped_range_is_noted():
    image = volume()
    out = SliceRanged("image", "4:120")({"image": image})["image"]
    assert out.meta["kept_indices"] == [4, 5, 6, 7, 8, 9]
    assert out.meta["notes"] == ["read", "slices 4:120 were asked for, the volume has 10: 4:10 was taken."]
    assert image.meta["notes"] == ["read"]


@pytest.mark.parametrize("slices", ["none", "5", "1:2:3", "a:b", 40, (40, 120), "", True])
def test_bad_range_text(slices):
    with pytest.raises(SettingsError, match="slices must be a text such as '40:120', 'all' or None"):
        SliceRange(slices)


@pytest.mark.parametrize("slices", ["5:5", "7:3", "10:20"])
def test_empty_range_names_the_depth(slices):
    with pytest.raises(SettingsError, match="holds no slice: the volume has 10"):
        SliceRange(slices)(volume())
