# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The reader in MONAI's interface, and volume ids."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import ImageReader
from monai.transforms import LoadImage

from monai_medpruner.data import VolumeReader, volume_id
from monai_medpruner.errors import SettingsError, UnreadableVolumeError

VOXELS = np.random.default_rng(0).normal(size=(7, 6, 5)).astype(np.float32)


@pytest.fixture
def nifti(tmp_path) -> Path:
    nib.save(nib.Nifti1Image(VOXELS, np.diag([1.0, 2, 3, 1])), tmp_path / "v.nii.gz")
    return tmp_path / "v.nii.gz"


def read(path):
    reader = VolumeReader()
    return reader.get_data(reader.read(path))


def test_works_in_monai_load_image(nifti):
    volume = LoadImage(reader=VolumeReader, ensure_channel_first=True)(nifti)
    assert isinstance(VolumeReader(), ImageReader)
    assert volume.shape == (1, 7, 6, 5)
    assert np.array_equal(volume[0], VOXELS)
    assert volume.affine.diagonal().tolist() == [1, 2, 3, 1]
    assert volume.meta["volume_id"] == volume_id(VOXELS, np.diag([1.0, 2, 3, 1]))


def test_monai_load_image_raises_typed_errors_of_a_reader_passed_to_the_call(tmp_path):
    with pytest.raises(UnreadableVolumeError, match="does not exist"):
        LoadImage()(tmp_path / "absent.nii.gz", reader=VolumeReader())


def test_folder_in_monai_load_image_after_pickling(tmp_path, write_series):
    series = write_series(tmp_path / "s")
    reader = pickle.loads(pickle.dumps(VolumeReader(series_uid="1.2.826.77")))
    volume = LoadImage(reader=reader)(tmp_path / "s")
    assert np.array_equal(volume, series.stored.transpose(2, 1, 0) - np.float32(1024))


def test_verify_suffix(tmp_path, nifti, write_series):
    series = write_series(tmp_path / "s")
    nameless = tmp_path / "slice"
    shutil.copy(series.files[0], nameless)
    (tmp_path / "a.txt").write_text("text " * 100)
    reader = VolumeReader()
    assert all(reader.verify_suffix(i) for i in (nifti, str(nifti), tmp_path / "s", nameless, [nifti, nameless]))
    assert not any(reader.verify_suffix(i) for i in (tmp_path / "a.txt", tmp_path / "absent", [nifti, "a.png"]))


@pytest.mark.parametrize("data", [[], ["a.nii", "b.nii"], 5, None])
def test_data_must_be_one_path(data):
    with pytest.raises(SettingsError, match="expected one path"):
        VolumeReader().read(data)


@pytest.mark.parametrize("series_uid", [1.2, 5, ["1.2"]])
def test_series_uid_must_be_text(series_uid):
    with pytest.raises(SettingsError, match="series_uid"):
        VolumeReader(series_uid)


def test_series_uid_of_a_nifti_file_is_rejected(nifti):
    with pytest.raises(SettingsError, match="is a NIfTI file"):
        VolumeReader("1.2.3").read(nifti)


@pytest.mark.parametrize("method", ["open", "iterdir"])
def test_missing_permission_raises_a_typed_error(tmp_path, nifti, monkeypatch, method):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, method, refuse)
    with pytest.raises(UnreadableVolumeError, match="cannot be opened: Permission denied"):
        VolumeReader().read(nifti if method == "open" else tmp_path)


def test_slices_are_contiguous_in_memory(nifti):
    assert read(nifti)[0].flags.f_contiguous


def test_id_depends_only_on_content(tmp_path, nifti):
    first = read(nifti)[1]["volume_id"]
    nib.save(nib.Nifti1Image(VOXELS, np.diag([1.0, 2, 3, 1])), tmp_path / "other name.nii")
    assert read(tmp_path / "other name.nii")[1]["volume_id"] == first
    assert len(first) == 16
    assert int(first, 16) >= 0


def test_id_depends_on_voxels_shape_and_affine():
    affine = np.eye(4)
    moved, nudged, changed = affine.copy(), affine.copy(), VOXELS.copy()
    moved[0, 3], nudged[0, 3], changed[3, 2, 1] = 1e-3, -1e-6, 9.0
    reference = volume_id(VOXELS, affine)
    assert volume_id(VOXELS, nudged) == reference
    assert volume_id(np.ascontiguousarray(VOXELS), affine) == volume_id(np.asfortranarray(VOXELS), affine) == reference
    others = [
        volume_id(changed, affine),
        volume_id(VOXELS, moved),
        volume_id(VOXELS.reshape(6, 7, 5, order="F"), affine),
        volume_id(VOXELS.view(np.int32), affine),
    ]
    assert len({reference, *others}) == 5
