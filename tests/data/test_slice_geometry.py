# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Order and geometry of slices, for random stacks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_medpruner.data.slice_geometry import stack_slices
from monai_medpruner.errors import DuplicateSlicesError

SPACING = np.array([0.7, 0.5])
AXIAL = np.array([1.0, 0, 0, 0, 1, 0])


def random_orientation(rng):
    directions, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return directions[:, :2].T.reshape(6)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 30), even=st.booleans(), shear=st.floats(-1.0, 1.0))
def test_order_positions_and_affine(seed, count, even, shear):
    rng = np.random.default_rng(seed)
    orientation = random_orientation(rng)
    normal = np.cross(orientation[:3], orientation[3:])
    gaps = np.full(count - 1, rng.uniform(0.5, 7)) if even else rng.uniform(0.5, 7, count - 1)
    heights = np.concatenate([[0.0], np.cumsum(gaps)]) + rng.uniform(-100, 100)
    true = heights[:, None] * normal + heights[:, None] * shear * orientation[3:] + [5.0, 6.0, 7.0]
    shuffled = rng.permutation(count)
    stack = stack_slices(true[shuffled], orientation, SPACING)
    assert shuffled[stack.order].tolist() == list(range(count))
    expected = [sum(p[i] * normal[i] for i in range(3)) for p in true]
    np.testing.assert_allclose(stack.positions_mm, expected, atol=1e-9)
    flips = np.array([-1, -1, 1])
    placed = range(count) if even else (0, count - 1)
    for index in placed:
        corner = true[index] + 3 * SPACING[1] * orientation[:3] + 2 * SPACING[0] * orientation[3:]
        np.testing.assert_allclose((stack.affine @ [3, 2, index, 1])[:3], flips * corner, atol=1e-9)
    assert stack.nonuniform == bool((np.abs(gaps - np.median(gaps)) > max(0.01 * np.median(gaps), 0.01)).any())
    angle = np.degrees(np.arctan(abs(shear)))
    if angle > 0.11:
        assert stack.tilt_degrees == pytest.approx(angle, abs=1e-6)
    elif angle < 0.09:
        assert stack.tilt_degrees is None


def heights(*values):
    return np.array([[0.0, 0.0, i] for i in values])


@pytest.mark.parametrize(("gap", "duplicate"), [(0.0, True), (1e-5, True), (0.015, True), (0.03, False)])
def test_slices_closer_than_one_percent_of_the_gap_are_duplicates(gap, duplicate):
    positions = heights(0, 2, 4, 4 + gap, 6 + gap, 8 + gap)
    if duplicate:
        with pytest.raises(DuplicateSlicesError, match=r"^1 of 6 slices .* slice 3 along"):
            stack_slices(positions, AXIAL, SPACING)
    else:
        assert stack_slices(positions, AXIAL, SPACING).nonuniform


def test_rounded_positions_are_even():
    positions = heights(*np.round(np.arange(40) * 0.625, 2))
    stack = stack_slices(positions, AXIAL, SPACING)
    assert (stack.nonuniform, stack.notes, stack.tilt_degrees) == (False, [], None)


def test_gap_that_is_not_a_multiple_is_uneven_without_missing_slices():
    stack = stack_slices(heights(0, 2, 4, 7.5, 9.5), AXIAL, SPACING)
    assert stack.nonuniform
    assert stack.notes == ["uneven slice gaps: 2.00 to 3.50 mm, 2.00 mm is usual"]


def test_many_missing_slices_are_summarized():
    values = [i for i in range(60) if i % 6 != 5 or i == 59]
    notes = stack_slices(heights(*values), AXIAL, SPACING).notes
    assert len(notes) == 7
    assert notes[-1] == "4 more such gaps: 4 more slices may be missing"


def test_in_plane_shift_is_noted():
    positions = heights(0, 2, 4, 6, 8)
    positions[2, 0] = 1.5
    stack = stack_slices(positions, AXIAL, SPACING)
    assert stack.nonuniform
    assert stack.notes == ["slices are shifted in their plane by up to 1.50 mm against a straight stack"]


@pytest.mark.parametrize(("thickness", "extent"), [(3.0, 3.0), (None, 1.0)])
def test_single_slice(thickness, extent):
    stack = stack_slices(heights(7), AXIAL, SPACING, thickness)
    assert stack.affine[:, 2].tolist() == [0, 0, extent, 0]
    assert (stack.positions_mm, stack.order, stack.nonuniform) == ([7.0], [0], False)
