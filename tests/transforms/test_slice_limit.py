# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""At most a number of slices, by the rules of the models' makers; metadata and inverse as of the other selections."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms import InterSliceAnchorFilter, SliceLimit, SliceLimitd, SliceRange


def volume(depth: int = 10) -> MetaTensor:
    return MetaTensor(torch.arange(float(depth)).expand(1, 3, 4, depth), meta={"notes": ["read"]})


def exact(rule: str, depth: int, limit: int) -> list[int]:
    """The rules in exact fractions."""
    if rule == "linspace":
        return [0] if limit == 1 else [int(Fraction(i * (depth - 1), limit - 1)) for i in range(limit)]
    return [round(Fraction(i * (depth - 1), limit)) for i in range(1, limit + 1)]


@pytest.mark.parametrize(
    ("rule", "limit", "kept"),
    [
        ("linspace", 4, [0, 3, 6, 9]),
        ("linspace", 5, [0, 2, 4, 6, 9]),  # 2.25, 4.5, 6.75 are rounded down
        ("linspace", 1, [0]),
        ("medgemma", 3, [3, 6, 9]),
        ("medgemma", 4, [2, 4, 7, 9]),  # 2.25, 4.5, 6.75, 9: the half goes to the even 4
        ("medgemma", 6, [2, 3, 4, 6, 8, 9]),  # 1.5, 3, 4.5, 6, 7.5, 9
        ("medgemma", 1, [9]),
    ],
)
def test_by_hand(rule, limit, kept):
    out = SliceLimit(limit, rule)(volume())
    assert out.meta["kept_indices"] == kept
    assert out[0, 0, 0].tolist() == kept
    assert out.meta["notes"] == ["read", f"10 slices passed the filter, {limit} of them were taken (max_slices)."]


@settings(max_examples=100, deadline=None)
@given(rule=st.sampled_from(["linspace", "medgemma"]), depth=st.integers(1, 400), limit=st.integers(1, 400))
def test_against_exact_fractions(rule, depth, limit):
    kept = SliceLimit(limit, rule).kept_slices(torch.zeros(1, 1, 1, depth))
    assert kept == sorted(set(kept))
    assert len(kept) == min(depth, limit)
    if limit >= depth:
        assert kept == list(range(depth))
    else:
        # in floating point, a value that is exactly whole or a half may fall to either side
        assert all(abs(a - b) <= 1 for a, b in zip(kept, exact(rule, depth, limit), strict=True))
        assert sum(a != b for a, b in zip(kept, exact(rule, depth, limit), strict=True)) <= limit // 8


@pytest.mark.parametrize("limit", [None, 10, 11])
@pytest.mark.parametrize("rule", ["linspace", "medgemma"])
def test_nothing_is_dropped_or_noted(limit, rule):
    out = SliceLimitd("image", limit, rule)({"image": volume()})["image"]
    assert out.meta["kept_indices"] == list(range(10))
    assert out.meta["notes"] == ["read"]


def test_after_the_anchor_filter():
    """Of the slices that it kept, in the numbering of the source; labels keep the same; both come back."""
    levels = torch.tensor([0, 0, 1, 2, 2, 3, 4, 4, 5, 6], dtype=torch.float32)  # kept: 0, 2, 3, 5, 6, 8, 9
    image = MetaTensor(levels.expand(1, 3, 4, 10), meta={"notes": ["read"]})
    data = {"image": InterSliceAnchorFilter(0.5)(image)}
    data["label"] = MetaTensor(data["image"].as_tensor() * 10)
    limit = SliceLimitd(["image", "label"], 3)
    out = limit(data)
    assert out["image"].meta["kept_indices"] == [0, 5, 9]
    assert out["image"].meta["source_depth"] == 10
    assert out["image"].meta["notes"][-1] == "7 slices passed the filter, 3 of them were taken (max_slices)."
    assert out["label"][0, 0, 0].tolist() == [0, 30, 60]
    back = limit.inverse(out)
    assert back["image"].meta["kept_indices"] == [0, 2, 3, 5, 6, 8, 9]
    assert back["label"][0, 0, 0].tolist() == [0, 0, 0, 30, 0, 0, 60]


@pytest.mark.parametrize("limit", [0, -1, 2.0, "5", "none", "all", True, [3]])
def test_bad_limit(limit):
    with pytest.raises(SettingsError, match="max_slices must be an integer of at least 1, or None"):
        SliceLimit(limit)


@pytest.mark.parametrize("rule", ["random", "", None])
def test_bad_rule(rule):
    with pytest.raises(SettingsError, match=r"one of \['linspace', 'medgemma'\]"):
        SliceLimit(3, rule)


def test_ratio_is_a_share_of_the_range():
    whole = volume(40)
    assert len(SliceLimit(ratio=0.25).kept_slices(whole)) == 10
    assert len(SliceLimit(ratio=0.29).kept_slices(MetaTensor(torch.rand(1, 1, 1, 100)))) == 29
    assert len(SliceLimit(5, ratio=0.25).kept_slices(whole)) == 5
    assert SliceLimit(ratio=0.001).kept_slices(whole) == [0]
    few = SliceRange("10:30")(whole)
    out = SliceLimit(ratio=0.5)(SliceLimit(15)(few))
    assert out.shape[-1] == few.meta["range_depth"] / 2 == 10
    assert "10 of them were taken (slice_ratio)" in out.meta["notes"][-1]


@settings(max_examples=80, deadline=None)
@given(
    steps=st.lists(st.floats(0.5, 6), min_size=1, max_size=40),
    gap=st.floats(0.4, 40),
    ratio=st.floats(0.02, 1),
)
def test_more_slices_than_the_ratio_where_a_gap_asks_for_them(steps, gap, ratio):
    positions = [0.0, *itertools.accumulate(steps)]
    stack = MetaTensor(torch.rand(1, 1, 1, len(positions)), meta={"slice_positions_mm": positions})
    kept = SliceLimit(ratio=ratio, max_gap_mm=gap).kept_slices(stack)
    without = SliceLimit(ratio=ratio).kept_slices(stack)
    assert len(kept) >= len(without)

    def largest(indices):
        return max((positions[b] - positions[a] for a, b in itertools.pairwise(indices)), default=positions[-1])

    if len(kept) < len(positions):
        assert largest(kept) <= gap + 1e-3
    if len(kept) > max(len(without), 2):
        assert largest(np.linspace(0, len(positions) - 1, len(kept) - 1, dtype=int).tolist()) > gap


@pytest.mark.parametrize("values", [{"ratio": 0}, {"ratio": 1.1}, {"ratio": "half"}, {"max_gap_mm": 0.0}], ids=str)
def test_ratio_and_gap_that_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        SliceLimit(**values)
