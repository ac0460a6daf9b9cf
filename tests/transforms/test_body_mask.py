# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The body's outline in CT: components, opening, parts, and what real scanners add."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from monai_medpruner.transforms import LoadVolume, SlicePlane
from monai_medpruner.transforms.body_mask import (
    body_extents,
    body_mask,
    coarse_means,
    coarse_steps,
    connected_components,
)


def flooded(mask):
    """Components by flooding from voxel to voxel."""
    labels, count = np.zeros(mask.shape, int), 0
    for seed in product(*map(range, mask.shape)):
        if not mask[seed] or labels[seed]:
            continue
        count += 1
        labels[seed], edge = count, [seed]
        while edge:
            place = edge.pop()
            for axis, step in product(range(3), (-1, 1)):
                near = tuple(place[i] + step * (i == axis) for i in range(3))
                if all(0 <= near[i] < mask.shape[i] for i in range(3)) and mask[near] and not labels[near]:
                    labels[near] = count
                    edge.append(near)
    return labels


@settings(max_examples=150, deadline=None)
@given(arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=7)))
def test_components_equal_flooding(mask):
    assert np.array_equal(connected_components(mask), flooded(mask))


def test_components_of_a_spiral():
    """Runs that are joined late, over many lines."""
    mask = np.zeros((1, 15, 15), bool)
    for ring in range(0, 8, 2):
        mask[0, ring, ring : 15 - ring] = mask[0, 14 - ring, ring : 15 - ring] = True
        mask[0, ring : 15 - ring, ring] = mask[0, ring : 15 - ring, 14 - ring] = True
        if ring:
            mask[0, ring + 1, ring - 1 : ring] = True
    assert connected_components(mask).max() == 1
    assert np.array_equal(connected_components(mask), flooded(mask))


@pytest.mark.parametrize("shape", [(7, 9, 11), (12, 8, 40), (3, 2, 2)])
@pytest.mark.parametrize("steps", [(1, 1, 1), (2, 3, 2), (4, 4, 3)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_coarse_means(shape, steps, order):
    values = np.random.default_rng(0).normal(size=shape)
    stored = torch.from_numpy(values.transpose(order).copy()).permute(*np.argsort(order).tolist())
    found = coarse_means(stored, steps)
    edges = [range(0, size, step) for size, step in zip(shape, steps, strict=True)]
    for i, j, k in product(*(range(len(one)) for one in edges)):
        cell = tuple(slice(edges[a][n], edges[a][n] + steps[a]) for a, n in enumerate((i, j, k)))
        assert float(found[k, i, j]) == pytest.approx(values[cell].mean(), abs=1e-5)
    assert found.shape == tuple(len(edges[axis]) for axis in (2, 0, 1))


def test_coarse_steps():
    assert coarse_steps((0.7, 1.5, 5.0)) == (6, 3, 1)
    assert coarse_steps((4.0, 9.0, 2.7)) == (1, 1, 1)


def room(depth=12, size=60):
    """Air, (D, H, W) on a grid of 4 mm."""
    return torch.full((depth, size, size), -1000.0)


def test_the_table_is_not_part_of_the_body():
    coarse = room()
    coarse[:, 10:30, 12:40] = 30
    coarse[:, 32:34, 2:58] = -200  # a shell, 8 mm
    coarse[:, 30:32, 20:22] = -100  # touches it
    body = body_mask(coarse)
    assert body[:, 10:30, 12:40].all()
    assert not body[:, 34:].any()
    assert not body[:, :, :12].any()
    assert not body[:, :, 40:].any()


@pytest.mark.parametrize(
    ("hu", "size", "kept"),
    [(20.0, 4, True), (-100.0, 4, True), (-300.0, 4, False), (20.0, 3, False)],
    ids=["an arm", "a fat arm", "foam", "a clip"],
)
def test_other_parts_of_the_body(hu, size, kept):
    """Arms beside the trunk, which a small field of view shows apart from it, are not cut off."""
    coarse = room(depth=40)
    coarse[:, 10:40, 10:40] = 30
    depth = 40 if size == 4 else 3
    coarse[:depth, 20 : 20 + size, 50 : 50 + size] = hu
    assert body_mask(coarse)[:, :, 50:].any() == kept


def test_thin_parts_come_back_as_far_as_twelve_millimeters():
    coarse = room()
    coarse[:, 20:50, 20:50] = 30
    coarse[5, 10:20, 35] = 30
    rows = np.flatnonzero(body_mask(coarse)[5].any(1))
    assert rows[0] == 17


def test_a_body_cut_off_by_the_border_reaches_it():
    coarse = room(depth=2)
    coarse[:, 30:, :] = 30
    body = body_mask(coarse)
    assert body[:, 30:].all()
    assert not body[:, :30].any()


def test_nothing_survives_the_opening():
    coarse = room()
    coarse[4, 5, 6] = 100
    assert not body_mask(coarse).any()
    voxels = coarse.permute(1, 2, 0)
    assert (body_extents(voxels, (4, 4, 4)) == 0).all()


def test_extents_enclose_the_body_of_each_slice():
    voxels = torch.full((90, 120, 33), -1000, dtype=torch.int16)
    voxels[20:61, 30:95, 6:30] = 40
    extents = body_extents(voxels, (2.0, 2.0, 1.5))
    assert extents.shape == (33, 4)
    for index in range(6, 30):
        assert extents[index].tolist() == [20, 62, 30, 96]
    assert (extents[:6] == 0).all()
    assert (extents[30:] == 0).all()


def test_without_air_there_is_no_outline():
    assert body_extents(torch.zeros(20, 20, 20), (4, 4, 4)) is None


@pytest.mark.parametrize(
    ("name", "box", "share"),
    [
        ("ct_full/s0024.nii.gz", 0.81, (0.59, 0.65)),
        ("ct_torso_nifti/ct.nii.gz", 0.94, (0.78, 0.83)),
        ("ct_torso_dicom", 0.5, (0.47, 0.51)),  # both arms in view
    ],
)
def test_real_volumes(shared_data, name, box, share):
    volume = SlicePlane()(LoadVolume()(shared_data(name)))
    spacing = torch.linalg.vector_norm(volume.affine[:3, :3], dim=0).tolist()
    extents = body_extents(volume.as_tensor()[0], spacing)
    assert (extents[:, 1] > 0).all()
    height, width, _ = volume.shape[1:]
    shares = (extents[:, 1] - extents[:, 0]) * (extents[:, 3] - extents[:, 2]) / (height * width)
    assert share[0] < shares.mean() < share[1]
    rows, columns = extents[:, 1].max() - extents[:, 0].min(), extents[:, 3].max() - extents[:, 2].min()
    assert rows * columns / (height * width) < box


def test_organs_lie_inside(shared_data):
    """The labels of all organs of a real CT, slice by slice."""
    volume = SlicePlane()(LoadVolume()(shared_data("ct_full/s0024.nii.gz")))
    organs = SlicePlane()(LoadVolume()(shared_data("ct_full/s0024_organs.nii.gz"))).as_tensor()[0] > 0
    spacing = torch.linalg.vector_norm(volume.affine[:3, :3], dim=0).tolist()
    for index, (top, bottom, left, right) in enumerate(body_extents(volume.as_tensor()[0], spacing)):
        assert organs[..., index].sum() == organs[top:bottom, left:right, index].sum()
