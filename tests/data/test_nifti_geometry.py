# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Contradictions in a NIfTI header's geometry are resolved with a note, or refused."""

from __future__ import annotations

import struct

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_medpruner.data import VolumeReader
from monai_medpruner.errors import SliceGeometryError, UnreadableVolumeError
from monai_medpruner.transforms import LoadVolume, SlicePlane

SHAPE = (7, 6, 5)
VOXELS = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
AFFINE = np.array([[-0.8, 0, 0, 30.0], [0, 0.8, 0, -20.0], [0, 0, 5.0, 100.0], [0, 0, 0, 1]])


def rotation(degrees, axis=2):
    """Return a (4, 4) rotation about an axis."""
    first, second = (other for other in range(3) if other != axis)
    matrix = np.eye(4)
    angle = np.radians(degrees)
    matrix[[first, first, second, second], [first, second, first, second]] = [
        np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    ]  # fmt: skip
    return matrix


def sheared(degrees, row=1, column=2):
    """Return the affine of a stack whose slices are shifted along a row's axis."""
    affine = AFFINE.copy()
    affine[row, column] = AFFINE[2, 2] * np.tan(np.radians(degrees))
    return affine


def write(path, sform=AFFINE, qform=None, **header):
    """Write a file with one or both placements."""
    image = nib.Nifti1Image(VOXELS, None)
    image.set_sform(sform, 0 if sform is None else 1)
    image.set_qform(qform, 0 if qform is None else 1)
    image.header.set_zooms(np.linalg.norm((sform if qform is None else qform)[:3, :3], axis=0))
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def patch(path, offset, layout, *values):
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, offset, *values)
    path.write_bytes(content)
    return path


def read(path):
    reader = VolumeReader()
    return reader.get_data(reader.read(path))[1]


@pytest.mark.parametrize("affine", [AFFINE, rotation(17) @ AFFINE, rotation(-30, 0) @ rotation(8, 1) @ AFFINE])
@pytest.mark.parametrize("both", [False, True])
def test_agreeing_placements_are_not_noted(tmp_path, affine, both):
    meta = read(write(tmp_path / "v.nii", affine, affine if both else None))
    np.testing.assert_allclose(meta["affine"], affine, atol=1e-4)
    assert meta["notes"] == []
    assert "slice_positions_mm" not in meta


@pytest.mark.parametrize("degrees", [-30.0, -0.2, 0.2, 8.0, 20.0])
@pytest.mark.parametrize("turn", [np.eye(4), rotation(25), rotation(-40, 0)])
def test_tilted_stack_has_the_geometry_of_a_tilted_dicom(tmp_path, degrees, turn):
    meta = read(write(tmp_path / "v.nii", turn @ sheared(degrees)))
    assert meta["slice_axis"] == 2
    assert meta["gantry_tilt_degrees"] == pytest.approx(abs(degrees), abs=1e-3)
    np.testing.assert_allclose(np.diff(meta["slice_positions_mm"]), 5.0, rtol=1e-5)
    assert [f"{abs(degrees):.1f} degrees to their normal" in note for note in meta["notes"]] == [True]


def test_tilt_about_the_other_axis_and_an_upside_down_stack(tmp_path):
    affine = sheared(15, row=0)
    affine[:3, 2] *= -1
    meta = read(write(tmp_path / "v.nii", affine))
    assert meta["gantry_tilt_degrees"] == pytest.approx(15, abs=1e-3)
    assert np.diff(meta["slice_positions_mm"]).min() > 0
    axial = SlicePlane()(LoadVolume()(tmp_path / "v.nii"))
    np.testing.assert_allclose(np.abs(np.diff(axial.meta["slice_positions_mm"])), 5.0, rtol=1e-5)
    assert axial[0, ..., 0].max() > axial[0, ..., -1].max()  # the file's last slice is the lowest


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_tilted_stack_has_no_other_plane(shared_case, plane):
    volume = LoadVolume()(shared_case("08_nifti_sheared_other_plane.py") / "tilted.nii.gz")
    assert SlicePlane("axial")(volume).meta["plane"] == "axial"
    with pytest.raises(SliceGeometryError, match="gantry tilt of 20"):
        SlicePlane(plane)(volume)


@pytest.mark.parametrize(("degrees", "refused"), [(2.0, False), (8.0, True)])
def test_shear_within_slices(tmp_path, degrees, refused):
    matrix = np.full((3, 3), np.sin(np.radians(degrees)) / 2)  # every two columns miss being perpendicular
    np.fill_diagonal(matrix, 1)
    affine = AFFINE.copy()
    affine[:3, :3] = matrix @ AFFINE[:3, :3]
    path = write(tmp_path / "v.nii", affine)
    if refused:
        with pytest.raises(SliceGeometryError, match="degrees from perpendicular"):
            read(path)
    else:
        assert "sheared by" in " ".join(read(path)["notes"])


def test_small_difference_of_placements_is_not_noted(tmp_path):
    shifted = AFFINE.copy()
    shifted[0, 3] += 0.3
    assert read(write(tmp_path / "v.nii", AFFINE, shifted))["notes"] == []


def test_difference_of_placements_is_noted(tmp_path):
    shifted = AFFINE.copy()
    shifted[2, 3] += 12.0
    meta = read(write(tmp_path / "v.nii", AFFINE, shifted))
    np.testing.assert_allclose(meta["affine"], AFFINE, atol=1e-5)
    assert ["up to 12.0 mm apart: the sform is used" in note for note in meta["notes"]] == [True]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_placements_are_refused(tmp_path, axis):
    mirrored = AFFINE.copy()
    mirrored[:, axis] *= -1
    with pytest.raises(SliceGeometryError, match="left and right"):
        read(write(tmp_path / "v.nii", AFFINE, mirrored))


def test_sizes_that_contradict_the_placement_are_noted(tmp_path):
    path = write(tmp_path / "v.nii")
    patch(path, 80, "<3f", 0.8, 0.8, 2.5)
    assert ["voxel sizes are 0.8, 0.8, 2.5 mm" in note for note in read(path)["notes"]] == [True]
    patch(path, 80, "<3f", 0.8, 0.8, 0.0)
    assert read(path)["notes"] == []


def test_degenerate_sform_gives_way_to_the_qform(tmp_path):
    path = write(tmp_path / "v.nii", AFFINE, AFFINE)
    patch(path, 280, "<12f", *np.zeros(12))
    meta = read(path)
    np.testing.assert_allclose(meta["affine"], AFFINE, atol=1e-4)
    assert ["sform is degenerate: the qform is used" in note for note in meta["notes"]] == [True]


def test_impossible_quaternion_beside_an_sform_is_noted(tmp_path):
    path = write(tmp_path / "v.nii", AFFINE, AFFINE)
    patch(path, 256, "<3f", 3.0, 3.0, 3.0)
    meta = read(path)
    np.testing.assert_allclose(meta["affine"], AFFINE, atol=1e-4)
    assert ["qform is degenerate: the sform is used" in note for note in meta["notes"]] == [True]


def test_offset_of_zero_is_read_from_the_usual_byte(shared_case):
    path = shared_case("19_nifti_vox_offset_zero.py") / "ct.nii"
    reader = VolumeReader()
    voxels, meta = reader.get_data(reader.read(path))
    assert (voxels.min(), voxels.max()) == (-1000, 40)
    patch(path, 108, "<f", 352.0)
    assert np.array_equal(voxels, nib.load(path).get_fdata())
    assert ["read from byte 352" in note for note in meta["notes"]] == [True]


def test_offset_of_zero_with_extensions_is_refused(tmp_path):
    image = nib.Nifti1Image(VOXELS, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"text"))
    nib.save(image, tmp_path / "v.nii")
    with pytest.raises(UnreadableVolumeError, match="where the voxels begin"):
        read(patch(tmp_path / "v.nii", 108, "<f", 0.0))


def test_trailing_axes_of_one_are_harmless(tmp_path):
    nib.save(nib.Nifti1Image(VOXELS[..., None, None, None], AFFINE), tmp_path / "v.nii")
    volume = LoadVolume()(tmp_path / "v.nii")
    assert np.array_equal(volume[0].numpy(), VOXELS)


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    sizes=st.tuples(*[st.floats(0.3, 8)] * 3),
    mirror=st.booleans(),
    tilt=st.floats(-35, 35),
)
def test_positions_are_those_of_the_slices(tmp_path_factory, angles, sizes, mirror, tilt):
    """Every slice lies where the affine says, measured along the normal of the slices."""
    affine = np.diag([*sizes, 1.0])
    affine[1, 2] = sizes[2] * np.tan(np.radians(tilt))
    affine[0] *= -1 if mirror else 1
    for axis, degrees in enumerate(angles):
        affine = rotation(degrees, axis) @ affine
    affine[:3, 3] = [11, -12, 13]
    meta = read(write(tmp_path_factory.mktemp("v") / "v.nii", affine))
    np.testing.assert_allclose(meta["affine"], affine, atol=1e-4)
    if "slice_positions_mm" not in meta:
        assert abs(tilt) < 0.11
        return
    axis = meta["slice_axis"]
    rows, columns = np.delete(affine[:3, :3], axis, axis=1).T
    normal = np.cross(rows, columns) / np.linalg.norm(np.cross(rows, columns))
    origins = [affine[:3, 3] + index * affine[:3, axis] for index in range(SHAPE[axis])]
    along = np.array([origin @ normal for origin in origins])
    along = along if along[0] < along[-1] else -along
    np.testing.assert_allclose(meta["slice_positions_mm"], along, atol=1e-3)
