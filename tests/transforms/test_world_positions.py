# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Whatever the geometry of a file, every voxel is found where the file says it lies, in every plane."""

from __future__ import annotations

from itertools import permutations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_medpruner.errors import SliceGeometryError
from monai_medpruner.transforms import LoadVolume, SlicePlane

PLANES = ("acquired", "axial", "coronal", "sagittal")
ANGLES = st.one_of(st.floats(-180, 180), st.sampled_from([-90.0, 0.0, 45.0, 90.0, 180.0]))


def rotation(angles):
    """Rotation (3, 3) about x, then y, then z, by angles in degrees."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians(angles)):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        one = np.eye(3)
        one[first, first] = one[second, second] = np.cos(angle)
        one[first, second], one[second, first] = -np.sin(angle), np.sin(angle)
        result = one @ result
    return result


def check_landmarks(path, values, affine):
    """Every landmark of a file has its value and its place in mm, in every plane that is not refused.

    Args:
        path: file or folder.
        values: (X, Y, Z), all different.
        affine: (4, 4), RAS mm.
    """
    loaded = LoadVolume()(path)
    corners = [tuple(one) for one in np.ndindex(2, 2, 2)]
    landmarks = [tuple(np.where(one, np.array(values.shape) - 1, 0)) for one in corners] + [(1, 2, 1)]
    for plane in PLANES:
        try:
            shown = SlicePlane(plane)(loaded)
        except SliceGeometryError:
            assert "gantry_tilt_degrees" in loaded.meta
            assert plane != "acquired"
            continue
        voxels, found = shown[0].numpy(), shown.affine.numpy()
        for landmark in landmarks:
            (index,) = np.argwhere(voxels == values[landmark])
            np.testing.assert_allclose(found @ [*index, 1], affine @ [*landmark, 1], atol=2e-3)
        assert len(shown.meta["slice_positions_mm"]) == voxels.shape[-1]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 7)] * 3).filter(lambda shape: shape[1] > 2),
    order=st.sampled_from(list(permutations(range(3)))),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    angles=st.tuples(ANGLES, ANGLES, ANGLES),
    sizes=st.tuples(*[st.floats(0.3, 8)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    tilt=st.one_of(st.just(0.0), st.floats(1, 30)),
    kind=st.sampled_from(["sform", "qform", "both"]),
)
def test_landmarks_of_a_nifti_file(tmp_path_factory, shape, order, signs, angles, sizes, origin, tilt, kind):
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) @ np.eye(3)[list(order)] * signs * sizes
    affine[:3, 3] = origin
    if kind == "sform" and tilt:  # stacked along the third axis, at an angle
        affine[:3, 2] += affine[:3, 1] / sizes[1] * sizes[2] * np.tan(np.radians(tilt))
    values = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape).astype(np.int16)
    image = nib.Nifti1Image(values, None)
    if kind != "qform":
        image.set_sform(affine, 1)
    if kind != "sform":
        image.set_qform(affine, 1)
    image.header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    path = tmp_path_factory.mktemp("v") / "v.nii"
    nib.save(image, path)
    check_landmarks(path, values, affine)


@settings(max_examples=12, deadline=None)
@given(
    angles=st.tuples(ANGLES, ANGLES, ANGLES),
    spacing=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
    gap=st.floats(0.5, 8),
    tilt=st.one_of(st.just(0.0), st.floats(1, 30)),
    backward=st.booleans(),
)
def test_landmarks_of_a_dicom_series(tmp_path_factory, angles, spacing, gap, tilt, backward):
    pydicom = pytest.importorskip("pydicom")
    values = np.random.default_rng(0).permutation(5 * 6 * 4).reshape(5, 6, 4).astype(np.uint16)
    row, column, normal = rotation(angles).T
    step = gap * normal + gap * np.tan(np.radians(tilt)) * column
    folder = tmp_path_factory.mktemp("s")
    for index in range(4):
        write_slice(pydicom, folder / f"{3 - index if backward else index}.dcm", values[..., index].T, spacing, row,
                    column, [12, -34, 56] + index * step)  # fmt: skip
    affine = np.eye(4)
    affine[:3] = np.stack([row * spacing[1], column * spacing[0], step, [12, -34, 56]], axis=1)
    check_landmarks(folder, values, np.diag([-1, -1, 1, 1]) @ affine)


def write_slice(pydicom, path, stored, spacing, row, column, position):
    """Write one slice, (rows, columns) uint16."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.SeriesInstanceUID, dataset.Modality = "1.2.826.77", "MR"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *stored.shape, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.ImagePositionPatient = [f"{value:.6f}" for value in position]
    dataset.ImageOrientationPatient = [f"{value:.9f}" for value in (*row, *column)]
    dataset.PixelSpacing, dataset.PixelData = [f"{value:.6f}" for value in spacing], stored.tobytes()
    dataset["PixelData"].VR = "OW"
    # pydicom 2, which MONAI Label needs, requires these in addition to the transfer syntax
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.save_as(path, write_like_original=False)
