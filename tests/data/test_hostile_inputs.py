# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Every input of the table of reliability is read with the values and places that were written, or refused by name."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("pydicom", minversion="3")
from hostile_inputs import INPUTS
from hostile_inputs.case import Truth, body, same
from hostile_inputs.reading import outcome

AFFINE = np.array([[0, -0.7, 0, 11.0], [0.5, 0, 0, -12.0], [0, 0, 2.5, 13.0], [0, 0, 0, 1]])


@pytest.mark.parametrize("one", INPUTS, ids=[one.name for one in INPUTS])
def test_input_is_read_right_or_refused(tmp_path, one):
    case = one.make(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel's and pydicom's, which are the oracles here
        found = outcome(one, case)
    assert (found.outcome, found.error) == (one.expected.outcome, one.expected.error), found
    assert one.expected.phrase in found.message
    assert not found.round_trip.startswith("differs")
    assert str(tmp_path) not in found.message


def test_every_input_says_what_is_expected():
    names = [one.name for one in INPUTS]
    assert len(names) == len(set(names)) >= 60
    assert len({one.text for one in INPUTS}) == len(INPUTS)
    for one in INPUTS:
        assert one.make.__name__ == one.name
        # a key phrase of the note or the message, so that no other cause passes for the one that is meant
        assert bool(one.expected.phrase) is (one.expected.outcome != "right"), one.name


def test_volumes_are_the_same_whatever_the_order_of_their_axes():
    turned = Truth(body().transpose(1, 0, 2)[:, ::-1], AFFINE[:, [1, 0, 2, 3]] @ flip(1, body().shape[0]))
    assert same(Truth(body(), AFFINE), turned)


@pytest.mark.parametrize("change", ["value", "place", "mirror", "shape", "nan"])
def test_other_volumes_are_not_the_same(change):
    voxels, affine = body().astype(np.float32), AFFINE.copy()
    if change == "value":
        voxels[3, 4, 5] += 1
    elif change == "place":
        affine[2, 3] += 0.05
    elif change == "mirror":
        affine[:, 0] *= -1
    elif change == "shape":
        voxels = voxels[..., 1:]
    else:
        voxels[0, 0, 0] = np.nan
    assert not same(Truth(body(), AFFINE), Truth(voxels, affine))


def flip(axis, size):
    """Affine from the voxels of an array to those of the same array, turned round along an axis."""
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1, size - 1
    return matrix
