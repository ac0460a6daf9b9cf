# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Another threshold changes nothing else."""

from __future__ import annotations

import pytest
import torch
from monai.transforms import Compose

from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms import (
    CheckVolumed,
    InterSliceAnchorFilter,
    InterSliceAnchorFilterd,
    TimedCompose,
    describe_transform,
    with_threshold,
)

FILTER = InterSliceAnchorFilterd(
    ["image", "label"], 0.025, 0, "label", True, guard_mm=12, guard_threshold=0.3
)  # every argument away from its default


def test_copies_keep_every_other_argument():
    for transform in (FILTER, FILTER.array_form):
        before = describe_transform(transform)
        changed = transform.with_threshold(0.1)
        assert type(changed) is type(transform)
        after = describe_transform(changed)
        assert after["arguments"].pop("threshold") == 0.1
        assert before["arguments"].pop("threshold") == 0.025
        assert after == before
        assert describe_transform(transform)["arguments"]["threshold"] == 0.025


def test_trees_keep_everything_else():
    check = CheckVolumed("image")
    load = TimedCompose("load", check)
    tree = Compose([load, TimedCompose("filter", [check, FILTER])], map_items=2)
    changed = with_threshold(tree, 0.1)
    assert type(changed) is Compose
    assert changed.map_items == 2
    assert changed.transforms[0] is load
    stage = changed.transforms[1]
    assert (type(stage), stage.stage, stage.transforms[0]) == (TimedCompose, "filter", check)
    found = stage.transforms[1].array_form
    assert (found.threshold, found.spatial_dim, found.guard_mm, found.guard_threshold) == (0.1, 0, 12.0, 0.3)
    assert FILTER.array_form.threshold == 0.025


def test_inverse_of_a_copy():
    image = torch.arange(4.0).expand(1, 3, 3, 4).contiguous()
    transform = InterSliceAnchorFilter(0.5).with_threshold(1.5)
    out = transform(image)
    assert out.meta["kept_indices"] == [0, 2]
    assert transform.inverse(out).shape == (1, 3, 3, 4)


@pytest.mark.parametrize("transform", [CheckVolumed("image"), Compose([TimedCompose("load", CheckVolumed("image"))])])
def test_transforms_without_a_filter_are_refused(transform):
    with pytest.raises(SettingsError, match="has no InterSliceAnchorFilter"):
        with_threshold(transform, 0.1)


@pytest.mark.parametrize("threshold", [-1, "none", float("nan")])
def test_bad_threshold(threshold):
    for transform in (FILTER, FILTER.array_form):
        with pytest.raises(SettingsError, match="threshold must be"):
            transform.with_threshold(threshold)
    with pytest.raises(SettingsError, match="threshold must be"):
        with_threshold(Compose([FILTER]), threshold)
    assert with_threshold(FILTER, None).array_form.threshold is None
