# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices as the makers of the models take them: as stored, and by instance number."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_medpruner.errors import SettingsError, SliceGeometryError
from monai_medpruner.transforms import LoadVolume, SliceLimit, SlicePlane, SliceRange

AS_STORED = SlicePlane(orientation="as_stored")
BY_NUMBER = SlicePlane(slice_order="instance_number")


def nifti(folder, order=(0, 1, 2), signs=(1, 1, 1), shape=(5, 6, 7)):
    """A NIfTI file whose array axis i runs along world axis ``order[i]`` in direction ``signs[i]``."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (target, sign) in enumerate(zip(order, signs, strict=True)):
        affine[target, axis] = sign * (1.0, 1.5, 2.0)[axis]
    voxels = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    path = folder / "volume.nii.gz"
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_a_nifti_file_as_nibabel_reads_it(tmp_path, order, signs):
    path = nifti(tmp_path, order, signs)
    image = LoadVolume()(path)
    out = AS_STORED(image)
    stored = nib.load(path).get_fdata()
    for index in range(stored.shape[2]):
        assert np.array_equal(out[0, :, :, index].numpy(), stored[:, :, index])
    assert torch.equal(out.affine, image.affine)
    assert out.meta["plane"] == ("sagittal", "coronal", "axial")[order[2]]
    ends = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))[order[2]]
    assert out.meta["slice_order"] == " to ".join(ends[:: signs[2]])
    assert torch.equal(AS_STORED.inverse(out), image)


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1)])
def test_axes_of_hulu_meds_loader(tmp_path, plane, axis, signs):
    """``nii_slice_axis`` takes an array axis; files have these axes in the order right, anterior, superior."""
    path = nifti(tmp_path, signs=signs)
    out = SlicePlane(plane, "as_stored")(LoadVolume()(path))
    stored = nib.load(path).get_fdata()
    assert out.shape[-1] == stored.shape[axis]
    for index in range(stored.shape[axis]):
        assert np.array_equal(out[0, :, :, index].numpy(), stored.take(index, axis))
    assert out.meta["plane"] == plane


def test_dicom_images_as_their_files_hold_them(write_series, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    series = write_series(tmp_path / "dicom", orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    out = AS_STORED(LoadVolume()(tmp_path / "dicom"))
    assert out.meta["plane"] == "sagittal"
    for index, file in enumerate(series.files):
        dataset = pydicom.dcmread(file)
        assert np.array_equal(out[0, :, :, index].numpy(), dataset.pixel_array.astype(np.float32) - 1024)


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("direction", [1, -1])
def test_slices_run_by_instance_number(write_series, tmp_path, falling, direction):
    """Whatever the direction of the normal and of the numbers; each slice is the file of its number."""
    pydicom = pytest.importorskip("pydicom")

    def number(dataset, index):
        dataset.InstanceNumber = 100 - 3 * index if falling else 20 + 3 * index

    series = write_series(tmp_path / "dicom", number, orientation=(float(direction), 0.0, 0.0, 0.0, 1.0, 0.0))
    image = LoadVolume()(tmp_path / "dicom")
    assert image.meta["instance_order"] == ("falling" if falling else "rising")
    out = BY_NUMBER(image)
    files = sorted((pydicom.dcmread(file) for file in series.files), key=lambda one: one.InstanceNumber)
    for index, dataset in enumerate(files):
        shown = dataset.pixel_array if direction == 1 else dataset.pixel_array[:, ::-1]
        assert np.array_equal(out[0, :, :, index].numpy(), shown.astype(np.float32) - 1024)
        height = float(out.affine[2, 2] * index + out.affine[2, 3])
        assert height == pytest.approx(float(dataset.ImagePositionPatient[2]))
    upward = files[-1].ImagePositionPatient[2] > files[0].ImagePositionPatient[2]
    assert out.meta["slice_order"] == ("inferior to superior" if upward else "superior to inferior")
    assert out.meta["instance_order"] == "rising"
    restored = BY_NUMBER.inverse(out.clone())
    assert torch.equal(restored, image)
    assert restored.meta["instance_order"] == image.meta["instance_order"]
    by_position = SlicePlane()(image)
    assert by_position.meta["slice_order"] == "inferior to superior"
    assert by_position.meta["instance_order"] == ("rising" if upward else "falling")
    # ranges and limits count in this order
    ranged = SliceLimit(3, "medgemma")(SliceRange("2:8")(out))
    assert ranged.meta["kept_indices"] == [2 + round(i / 3 * 5) for i in (1, 2, 3)]
    assert torch.equal(ranged[..., 0].as_tensor(), out[..., ranged.meta["kept_indices"][0]].as_tensor())


def test_numbers_that_change_direction_are_refused(write_series, tmp_path):
    write_series(tmp_path / "dicom")  # numbered at random
    image = LoadVolume()(tmp_path / "dicom")
    assert image.meta["instance_order"] == "mixed"
    with pytest.raises(SliceGeometryError, match="neither rise nor fall"):
        BY_NUMBER(image)
    assert SlicePlane()(image).meta["instance_order"] == "mixed"


@pytest.mark.parametrize("text", ["", "7.5", "one", "1e3", "\\", "123456789012345"])
def test_a_number_that_is_none_is_no_order(write_series, tmp_path, text):
    def edit(dataset, index):
        from pydicom.dataelem import RawDataElement
        from pydicom.tag import Tag

        dataset.InstanceNumber = index + 1
        if index == 3:
            content = text.encode() + b" " * (len(text) % 2)
            tag = Tag(0x0020, 0x0013)
            dataset._dict[tag] = RawDataElement(tag, "IS", len(content), content, 0, False, True)

    write_series(tmp_path / "dicom", edit)
    image = LoadVolume()(tmp_path / "dicom")
    assert "instance_order" not in image.meta
    out = BY_NUMBER(image)
    assert out.meta["notes"][-1] == "no instance numbers to follow: slices run from inferior to superior"


def test_files_without_numbers_and_other_planes_run_by_position(write_series, tmp_path):
    image = LoadVolume()(nifti(tmp_path))
    out = BY_NUMBER(image)
    assert torch.equal(out.as_tensor(), SlicePlane()(image).as_tensor())
    assert out.meta["notes"][-1].startswith("no instance numbers to follow")
    assert image.meta["notes"] == []

    write_series(tmp_path / "dicom", lambda dataset, index: setattr(dataset, "InstanceNumber", 9 - index))
    series = LoadVolume()(tmp_path / "dicom")
    coronal = SlicePlane("coronal", slice_order="instance_number")(series)
    assert torch.equal(coronal.as_tensor(), SlicePlane("coronal")(series).as_tensor())
    assert "instance_order" not in coronal.meta
    assert coronal.meta["notes"][-1].startswith("no instance numbers to follow")


def test_an_array_without_a_file_is_taken_as_it_is():
    voxels = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    assert torch.equal(AS_STORED(MetaTensor(voxels)).as_tensor(), voxels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"orientation": "raw"}, "orientation must be"),
        ({"slice_order": "number"}, "slice_order must be"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(SettingsError, match=message):
        SlicePlane(**arguments)
