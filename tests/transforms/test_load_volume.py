# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""LoadVolume and its dictionary form."""

from __future__ import annotations

import pickle

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, set_track_meta
from monai.transforms import Compose

from monai_medpruner.errors import UnreadableVolumeError
from monai_medpruner.transforms.load_volume import LoadVolume, LoadVolumeD, LoadVolumed, LoadVolumeDict

VOXELS = (np.random.default_rng(0).normal(size=(7, 6, 5, 3)) * 100).astype(np.int16)
AFFINE = np.diag([-1.0, 2.0, 3.0, 1.0])


@pytest.fixture(params=[3, 4], ids=["3-D", "4-D"])
def nifti(request, tmp_path):
    voxels = VOXELS if request.param == 4 else VOXELS[..., 0]
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "v.nii.gz")
    expected = np.stack([voxels[..., i] for i in range(3)]) if request.param == 4 else voxels[None]
    return tmp_path / "v.nii.gz", expected.astype(np.float32)


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("as_text", [False, True])
def test_channel_first_with_metadata(nifti, dictionary, as_text):
    path, expected = nifti
    source = str(path) if as_text else path
    data = {"image": source, "question": ["a?"]}
    result = LoadVolumed("image")(data) if dictionary else {"image": LoadVolume()(source), "question": ["a?"]}
    volume = result["image"]
    assert set(result) == {"image", "question"}
    assert data["image"] is source
    assert isinstance(volume, MetaTensor)
    assert volume.dtype == torch.float32
    assert np.array_equal(volume, expected)
    assert np.array_equal(volume.affine, AFFINE)
    assert volume.meta["filename_or_obj"] == str(path)
    assert volume.meta["spatial_shape"].tolist() == [7, 6, 5]
    assert (volume.meta["notes"], volume.meta["nonuniform"]) == ([], False)


def test_slices_stay_contiguous(nifti):
    volume = LoadVolume()(nifti[0])
    assert volume.stride()[1:] == (1, 7, 7 * 6)


def test_metadata_is_not_tracked_where_monai_is_told_so(nifti):
    path, expected = nifti
    set_track_meta(False)
    try:
        volume = LoadVolume()(path)
    finally:
        set_track_meta(True)
    assert type(volume) is torch.Tensor
    assert np.array_equal(volume, expected)


def test_missing_keys(nifti):
    path, expected = nifti
    assert LoadVolumed("label", allow_missing_keys=True)({"image": path}) == {"image": path}
    with pytest.raises(KeyError):
        LoadVolumed("label")({"image": path})
    result = LoadVolumed(["image", "label"])({"image": path, "label": path})
    assert np.array_equal(result["label"], expected)


def test_errors_are_typed(tmp_path):
    with pytest.raises(UnreadableVolumeError, match="does not exist"):
        LoadVolume()(tmp_path / "absent.nii.gz")
    with pytest.raises(RuntimeError) as caught:
        Compose([LoadVolumed("image")])({"image": str(tmp_path / "absent.nii.gz")})
    assert isinstance(caught.value.__cause__, UnreadableVolumeError)


def test_tilted_series_reaches_the_metadata(shared_data):
    volume = LoadVolume()(shared_data("ct_head_tilted_dicom"))
    assert volume.shape == (1, 512, 512, 28)
    assert volume.meta["nonuniform"] is True
    assert len(volume.meta["slice_positions_mm"]) == 28
    assert volume.meta["modality"] == "CT"


def test_series_is_chosen(shared_data):
    folder = str(shared_data("ct_torso_dicom"))
    with pytest.raises(OSError, match=r"no DICOM series 1\.2\.3"):
        LoadVolumed("image", series_uid="1.2.3")({"image": folder})


def test_pickling_and_aliases(nifti):
    path, expected = nifti
    assert LoadVolumeD is LoadVolumeDict is LoadVolumed
    transform = pickle.loads(pickle.dumps(LoadVolumed("image")))
    assert np.array_equal(transform({"image": path})["image"], expected)
