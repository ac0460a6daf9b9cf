# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices in the radiologist's view, whatever the memory order, direction and obliqueness of the volume."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, set_track_meta
from monai.transforms import Compose

from monai_medpruner.errors import SettingsError, SliceGeometryError, SpacingError, VolumeShapeError
from monai_medpruner.transforms import SlicePlane, SlicePlaned, SliceRange

# world directions (right, anterior, superior positive) in which rows, columns and slices run
VIEWS = {
    "axial": [(0, -1, 0), (-1, 0, 0), (0, 0, 1)],
    "coronal": [(0, 0, -1), (-1, 0, 0), (0, -1, 0)],
    "sagittal": [(0, 0, -1), (0, -1, 0), (-1, 0, 0)],
}


def world_volume(
    order=(0, 1, 2), signs=(1, 1, 1), spacing=(1.0, 1.0, 1.0), tilt=0.0, space="RAS", **meta
) -> MetaTensor:
    """A volume whose voxels hold their own world position (R, A, S) in three channels.

    Array axis i runs along world axis ``order[i]`` in direction ``signs[i]``.
    """
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (target, sign) in enumerate(zip(order, signs, strict=True)):
        affine[target, axis] = sign * spacing[target]
    rotation = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = (-30, 20, 700)
    shape = tuple((4, 5, 6)[target] for target in order)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    positions = np.einsum("ij,j...->i...", affine[:3, :3], grid) + affine[:3, 3].reshape(3, 1, 1, 1)
    stored = affine if space == "RAS" else np.diag([-1, -1, 1, 1]) @ affine
    return MetaTensor(torch.as_tensor(positions), affine=torch.as_tensor(stored), meta={"space": space, **meta})


def world_positions(image: MetaTensor) -> torch.Tensor:
    """Positions that the affine gives to every voxel."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in image.shape[1:]], indexing="ij"))
    return torch.einsum("ij,j...->i...", image.affine[:3, :3], grid) + image.affine[:3, 3].reshape(3, 1, 1, 1)


@pytest.mark.parametrize("plane", VIEWS)
@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_views(plane, order, signs):
    image = world_volume(order, signs)
    out = SlicePlane(plane)(image)
    for axis, direction in enumerate(VIEWS[plane]):
        step = out.as_tensor().diff(dim=axis + 1)
        torch.testing.assert_close(
            step, torch.tensor(direction, dtype=torch.float64).reshape(3, 1, 1, 1).expand_as(step)
        )
    torch.testing.assert_close(world_positions(out), out.as_tensor())
    assert out.meta["plane"] == plane
    slices = out.as_tensor()[:, 0, 0].T @ torch.tensor(VIEWS[plane][2], dtype=torch.float64)
    assert out.meta["slice_positions_mm"] == pytest.approx(slices.tolist())


@pytest.mark.parametrize("space", ["RAS", "LPS"])
def test_oblique_volume_goes_to_the_nearest_plane_in_either_world_convention(space):
    image = world_volume((1, 2, 0), (-1, 1, -1), tilt=0.4, space=space)
    out = SlicePlane("axial")(image)
    steps = [out.as_tensor().diff(dim=axis)[:, 0, 0, 0] for axis in (1, 2, 3)]
    for step, direction in zip(steps, VIEWS["axial"], strict=True):
        assert float(step @ torch.tensor(direction, dtype=torch.float64)) == pytest.approx(
            np.cos(0.4) if direction[0] == 0 else 1
        )


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize(
    ("spacing", "plane"),
    [
        ((1.0, 1.0, 5.0), "axial"),
        ((1.0, 4.0, 1.0), "coronal"),
        ((3.0, 1.0, 1.0), "sagittal"),
        ((3.0, 3.0, 3.0), "axial"),
        ((3.0, 3.0, 2.9995), "axial"),
        ((3.0, 3.0, 2.9), "coronal"),
        ((3.0, 1.0, 3.0), "axial"),
    ],
)
def test_acquired_plane_is_that_of_the_largest_spacing(order, spacing, plane):
    assert SlicePlane()(world_volume(order, spacing=spacing)).meta["plane"] == plane


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_acquired_axis_of_the_reader_decides_and_its_positions_follow(axis, sign):
    order = (1, 2, 0)
    plane = ["sagittal", "coronal", "axial"][order[axis]]
    signs = [1, 1, 1]
    signs[axis] = sign
    count = (4, 5, 6)[order[axis]]
    positions = [float(i * i) for i in range(count)]  # uneven: cannot come from the affine
    meta = {"slice_axis": axis, "slice_positions_mm": positions, "nonuniform": True, "gantry_tilt_degrees": 12.0}
    image = world_volume(order, signs, **meta)
    out = SlicePlane()(image)
    assert out.meta["plane"] == plane
    assert out.meta["slice_axis"] == 2
    runs_backwards = (sign == 1) == (plane != "axial")
    assert out.meta["slice_positions_mm"] == (positions[::-1] if runs_backwards else positions)
    assert SlicePlane(plane)(image).meta["slice_positions_mm"] == out.meta["slice_positions_mm"]
    assert image.meta["slice_positions_mm"] == [float(i * i) for i in range(count)]


def test_another_plane_takes_its_positions_from_the_affine():
    image = world_volume(spacing=(1.5, 2.0, 5.0), slice_axis=2, slice_positions_mm=[5.0 * i for i in range(6)])
    out = SlicePlane("coronal")(image)
    assert out.meta["slice_axis"] == 0
    assert np.diff(out.meta["slice_positions_mm"]).tolist() == pytest.approx([2.0] * 4)


@pytest.mark.parametrize(
    ("meta", "found"),
    [({"nonuniform": True}, "uneven gaps"), ({"gantry_tilt_degrees": 18.5}, r"gantry tilt of 18\.5 degrees")],
)
def test_no_other_plane_through_slices_that_form_no_grid(meta, found):
    image = world_volume(slice_axis=2, **meta)
    with pytest.raises(SliceGeometryError, match=f"sagittal plane was asked for.*{found}"):
        SlicePlane("sagittal")(image)
    assert SlicePlane("axial")(image).meta["plane"] == "axial"


@pytest.mark.parametrize("plane", ["acquired", *VIEWS])
@pytest.mark.parametrize("space", ["RAS", "LPS"])
def test_inverse_restores_voxels_affine_and_metadata(plane, space):
    pixdim = np.array([1.0, 1.0, 2.0, 3.0, 0.0])
    meta = {"slice_axis": 1, "slice_positions_mm": [float(i) for i in range(6)], "pixdim": pixdim.copy()}
    image = world_volume((1, 2, 0), (-1, 1, -1), spacing=(0.7, 1.3, 3.1), tilt=0.1, space=space, **meta)
    data = {
        "image": image,
        "label": MetaTensor(image.as_tensor()[:1] > 0, affine=image.affine.clone(), meta={"space": space}),
    }
    pipeline = Compose([SlicePlaned(["image", "label"], plane)])
    out = pipeline(data)
    np.testing.assert_array_equal(image.meta["pixdim"], pixdim)
    restored = pipeline.inverse(out)
    for key in data:
        assert torch.equal(restored[key].as_tensor(), data[key].as_tensor())
        torch.testing.assert_close(restored[key].affine, data[key].affine, rtol=0, atol=1e-12)
        assert restored[key].meta.keys() == data[key].meta.keys()
        assert restored[key].applied_operations == []
    np.testing.assert_array_equal(restored["image"].meta["pixdim"], pixdim)
    assert restored["image"].meta["slice_axis"] == 1


@pytest.mark.parametrize("convert", [lambda v: v, lambda v: v.numpy()])
def test_without_affine_axes_are_taken_for_right_anterior_superior(convert):
    image = torch.arange(2.0 * 3 * 4).reshape(1, 2, 3, 4)
    out = SlicePlane()(convert(image))
    assert out.meta["plane"] == "axial"
    assert torch.equal(out.as_tensor(), image.transpose(1, 2).flip(1, 2))


def test_without_metadata_tracking():
    image = world_volume((2, 0, 1), (1, -1, 1))
    expected = SlicePlane("coronal")(image).as_tensor()
    set_track_meta(False)
    try:
        out = SlicePlane("coronal")(image)
    finally:
        set_track_meta(True)
    assert not isinstance(out, MetaTensor)
    assert torch.equal(out, expected)


def test_refusals():
    with pytest.raises(SettingsError, match="plane must be"):
        SlicePlane("transversal")
    with pytest.raises(VolumeShapeError, match="shape"):
        SlicePlane()(torch.rand(3, 4, 5))
    with pytest.raises(SettingsError, match="choose the plane first"):
        SlicePlane()(SliceRange("1:3")(world_volume()))
    singular = MetaTensor(torch.rand(1, 3, 4, 5), affine=torch.diag(torch.tensor([1.0, 0.0, 1.0, 1.0])))
    with pytest.raises(SpacingError, match="three different axes"):
        SlicePlane()(singular)


def test_real_volumes(shared_data):
    for name in ("ct_torso_nifti/ct_small.nii.gz", "mr_torso_nifti/mr_small.nii.gz"):
        file = nib.load(shared_data(name))
        image = MetaTensor(torch.as_tensor(file.get_fdata())[None], affine=torch.as_tensor(file.affine))
        out = SlicePlane()(image)
        assert out.meta["plane"] == "axial"
        assert nib.aff2axcodes(out.affine.numpy()) == ("P", "L", "S")
        canonical = nib.as_closest_canonical(file).get_fdata()
        np.testing.assert_array_equal(out[0].numpy(), canonical.transpose(1, 0, 2)[::-1, ::-1])
