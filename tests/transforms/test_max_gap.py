# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Every ball of the gap bound's diameter inside the stack meets a kept slice, whatever the voxels."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms import (
    InterSliceAnchorFilter,
    InterSliceAnchorFilterd,
    LoadVolume,
    SelectSlices,
    SlicePlane,
    SliceRange,
    describe_transform,
    with_threshold,
)


def free_balls(positions: list[float], kept: list[int], diameter: float) -> list[tuple[Fraction, Fraction]]:
    """Intervals of centers, exact, of balls inside the stack that touch no kept slice; open at kept slices."""
    exact = sorted(map(Fraction, positions))
    radius = Fraction(diameter) / 2
    planes = sorted(Fraction(positions[index]) for index in kept)
    inside = (exact[0] + radius, exact[-1] - radius)
    free = []
    # a ball misses all planes where its center is farther than the radius from each of them
    for low, high in pairwise([None, *planes, None]):
        start = inside[0] if low is None else max(inside[0], low + radius)
        end = inside[1] if high is None else min(inside[1], high - radius)
        touches_low = low is not None and start == low + radius
        touches_high = high is not None and end == high - radius
        if start < end or (start == end and not touches_low and not touches_high):
            free.append((start, end))
    return free


def meets_each_ball(positions: list[float], kept: list[int], diameter: float) -> bool:
    return not free_balls(positions, kept, diameter)


def test_the_oracle():
    positions = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert meets_each_ball(positions, [1, 4], 3.0)
    assert free_balls(positions, [1, 4], 2.5) == [(Fraction(9, 4), Fraction(11, 4))]
    assert free_balls(positions, [2], 2.0) == [(Fraction(3), Fraction(4))]
    assert meets_each_ball(positions, [2], 3.0)
    assert free_balls(positions, [0], 5.0) == []
    assert meets_each_ball(positions, [3], 6.0)  # no ball of that size lies inside the stack


@st.composite
def stacks(draw):
    """Positions with uneven gaps, ascending or descending, as multiples of 1/64 mm, and the bound."""
    steps = draw(st.lists(st.integers(1, 9 * 64), min_size=1, max_size=40))
    gap = draw(st.integers(max(steps), 12 * 64)) / 64  # the source has no larger gap
    start = draw(st.integers(-(10**5), 10**5))
    positions = [start / 64]
    for step in steps:
        positions.append(positions[-1] + step / 64)
    return (positions[::-1] if draw(st.booleans()) else positions), gap


@settings(max_examples=300, deadline=None)
@given(stack=stacks(), seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 0.02, 1.0]), guard=st.booleans())
def test_every_ball_meets_a_kept_slice(stack, seed, scale, guard):
    positions, gap = stack
    voxels = scale * torch.rand(1, 3, 4, len(positions), generator=torch.Generator().manual_seed(seed))
    image = MetaTensor(voxels, meta={"slice_positions_mm": positions})
    for threshold in (0.0, 0.2, 1e9):
        transform = InterSliceAnchorFilter(threshold, guard_mm=2.0 if guard else None, max_gap_mm=gap)
        kept = transform.kept_slices(image)
        assert meets_each_ball(positions, kept, gap)
        assert kept[0] == 0
        assert "notes" not in transform(image).meta
    assert kept == list(transform(image).meta["kept_indices"])
    for rule in ({"name": "anchor", "threshold": 0.2, "max_gap_mm": gap}, {"name": "evenly_spaced_mm", "gap_mm": gap}):
        assert meets_each_ball(positions, SelectSlices(rule).kept_slices(image), gap)


@settings(max_examples=60, deadline=None)
@given(stack=stacks())
def test_no_slice_too_many(stack):
    """Where voxels say nothing, dropping any kept slice but the first leaves a free ball or a shorter last stretch."""
    positions, gap = stack
    kept = InterSliceAnchorFilter(0.5, max_gap_mm=gap).kept_slices(
        MetaTensor(torch.zeros(1, 2, 2, len(positions)), meta={"slice_positions_mm": positions})
    )
    for number in range(1, len(kept)):
        fewer = kept[:number] + kept[number + 1 :]
        bounds = sorted({0, *fewer, len(positions) - 1})
        assert max(abs(positions[later] - positions[earlier]) for earlier, later in pairwise(bounds)) > gap


@pytest.mark.parametrize("gap", [7.5, 10.0])
def test_a_tilted_series_with_uneven_gaps(shared_data, gap):
    """Positions are those along the normal: 1.08 to 6.99 mm apart, and not those along the tilted table."""
    volume = SlicePlane()(LoadVolume()(shared_data("ct_head_tilted_dicom")))
    positions = list(volume.meta["slice_positions_mm"])
    kept = InterSliceAnchorFilter(1e9, max_gap_mm=gap).kept_slices(volume)
    assert meets_each_ball(positions, kept, gap + 1e-4)  # positions are decimal text
    assert len(kept) < len(positions)
    assert not meets_each_ball(positions, InterSliceAnchorFilter(1e9).kept_slices(volume), gap)


def test_after_a_range():
    """The bound holds within the slices that are left."""
    affine = torch.diag(torch.tensor([1.0, 1.0, 2.5, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.zeros(1, 4, 4, 20), affine=affine)
    out = Compose([SliceRange("5:16"), InterSliceAnchorFilter(0.5, max_gap_mm=5.0)])(image)
    assert list(out.meta["kept_indices"]) == [5, 7, 9, 11, 13]
    assert InterSliceAnchorFilter(0.5, max_gap_mm=5.0).kept_slices(image.as_tensor()) == [0, 5, 10, 15]  # 1 mm


def test_the_bound_stays_with_another_threshold():
    transform = InterSliceAnchorFilterd("image", 0.5, max_gap_mm=5.0)
    changed = with_threshold(transform, 0.1)
    assert describe_transform(changed)["arguments"] == {
        **describe_transform(transform)["arguments"],
        "threshold": 0.1,
    }
    assert changed.array_form.max_gap_mm == 5.0


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), "5", True])
def test_invalid_bounds(value):
    with pytest.raises(SettingsError, match="max_gap_mm must be a finite number above 0 or None"):
        InterSliceAnchorFilter(max_gap_mm=value)
