# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The overlay of a cropped study on the grid of its file: a token a voxel, kept where a landmark lies."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from monai_medpruner.label.overlay import overlay
from monai_medpruner.networks.study_record import study_record
from monai_medpruner.results import SliceRecord, StudyRecord
from monai_medpruner.transforms import (
    CropBodyd,
    FindBodyd,
    IntensityWindowsd,
    InterSliceAnchorFilterd,
    LoadVolume,
    LoadVolumed,
    SlicePlaned,
    SliceRanged,
)

DENSE = 0.75  # of the window -1000 to 1000 HU, 500 HU


def record_of(path, plane="acquired", threshold=0.02, slices="all", square=False):
    """Record of a study whose kept tokens are the voxels above 500 HU, and the cropped volume."""
    chain = Compose(
        [
            LoadVolumed("image"),
            SlicePlaned("image", plane),
            FindBodyd("image"),
            IntensityWindowsd("image", windows=[[-1000, 1000]], modality="ct"),
            SliceRanged("image", slices),
            InterSliceAnchorFilterd("image", threshold),
            CropBodyd("image", margin_mm=0, square=square),
        ]
    )
    volume = chain({"image": str(path)})["image"]
    records = []
    for one in volume.as_tensor()[0].unbind(-1):
        primary = (one > DENSE).flatten()
        nowhere = torch.zeros_like(primary)
        records.append(SliceRecord(tuple(one.shape), primary, nowhere, torch.where(primary, 0, -1)))
    return study_record(volume, "ab", records, {}, {}), volume


def write_ct(path, axes, signs, tilt=0.0):
    """A body with landmarks on one side, in air, as a file whose axes run along ``axes`` in direction ``signs``."""
    voxels = np.full((36, 44, 20), -1000, np.int16)  # right to left, anterior to posterior, inferior to superior
    voxels[6:24, 10:35, 2:18] = 40
    voxels[8, 12:15, 3:9] = voxels[20:23, 30, 10:15] = voxels[9:12, 20, 5] = 900
    voxels[:, 38:40] = 300  # table
    stored = voxels.transpose(axes)
    affine = np.zeros((4, 4))
    for axis, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        if sign < 0:
            stored = np.flip(stored, axis)
        affine[world, axis] = 4.0 * sign * (-1 if world < 2 else 1)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine[:, 3] = 11, -7, 30, 1
    nib.save(nib.Nifti1Image(np.ascontiguousarray(stored), turn @ affine), path)
    return np.ascontiguousarray(stored), turn @ affine


@pytest.mark.parametrize("tilt", [0.0, 0.35], ids=["straight", "oblique"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize(
    ("axes", "signs"),
    [((0, 1, 2), (1, 1, 1)), ((1, 0, 2), (-1, 1, -1)), ((2, 0, 1), (1, -1, 1)), ((1, 2, 0), (-1, -1, -1))],
)
def test_landmarks(tmp_path, axes, signs, plane, tilt):
    voxels, affine = write_ct(tmp_path / "ct.nii.gz", axes, signs, tilt)
    record, volume = record_of(tmp_path / "ct.nii.gz", plane, threshold=None)
    record = StudyRecord.load(record.save(tmp_path / "ab.safetensors"))
    labels, placed = overlay(record)
    assert labels.shape == voxels.shape
    assert np.allclose(placed, affine, atol=1e-5)
    assert np.array_equal(labels == 2, voxels == 900)
    # the body's box in the two axes of a slice, every slice along the third
    along = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    depth = axes.index(along)
    box = np.argwhere(voxels == 40)
    inside = np.zeros(voxels.shape, bool)
    inside[tuple(slice(None) if a == depth else slice(*(box[:, a].min(), box[:, a].max() + 1)) for a in range(3))] = (
        True
    )
    assert np.array_equal(labels > 0, inside)
    assert volume.shape[1:3] != record.geometry.shape[:2]


@pytest.mark.parametrize("square", [False, True])
def test_some_slices_of_a_flipped_study(tmp_path, square):
    voxels, _ = write_ct(tmp_path / "ct.nii.gz", (1, 0, 2), (-1, 1, -1))
    record, _ = record_of(tmp_path / "ct.nii.gz", "axial", 0.0005, "2:16", square)
    labels, _ = overlay(record)
    assert 1 < len(record.slice_indices) < 14
    kept = np.zeros(20, bool)
    kept[[19 - index for index in record.slice_indices]] = True  # the file runs downwards
    assert np.array_equal((labels > 0).any((0, 1)), kept)
    assert np.array_equal(labels == 2, (voxels == 900) & kept)


@pytest.mark.parametrize("name", ["ct_head_tilted_dicom", "ct_torso_dicom", "ct_full/s0024.nii.gz"])
def test_real_studies(shared_data, name):
    """Bone is painted where the file has it, under a gantry tilt as well."""
    path = shared_data(name)
    source = LoadVolume()(path)
    record, volume = record_of(path, slices="4:14")
    labels, affine = overlay(record)
    assert "crop" in volume.meta
    assert np.allclose(affine, source.affine.numpy())
    painted, dense = labels == 2, source.as_tensor()[0].numpy() > 500
    assert painted.sum() == sum(int(one.primary.sum()) for one in record.slices)
    assert painted.any()
    assert dense[painted].all()
    kept = (labels > 0).any((0, 1))
    assert kept.sum() == len(record.slice_indices)
    encoded = labels > 0
    assert np.array_equal(dense[encoded], painted[encoded])
