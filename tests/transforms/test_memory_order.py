# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Volumes lie in memory slice by slice from the file to the encoder: strides after every transform."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from monai_medpruner.data.collate import collate_volumes
from monai_medpruner.transforms import (
    CheckVolumed,
    DownsampleSlicesd,
    HUWindowsd,
    IntensityWindowsd,
    InterSliceAnchorFilterd,
    LoadVolumed,
    PercentileWindowd,
    SliceLimitd,
    SliceMinMaxd,
    SlicePlaned,
    SliceRanged,
)

LOADING = [LoadVolumed("image"), CheckVolumed("image"), SlicePlaned("image")]
SCALINGS = [
    IntensityWindowsd("image"),
    IntensityWindowsd("image", windows="uint8"),
    HUWindowsd("image", ["lung", "soft_tissue", "bone"], assume_hu=True),
    PercentileWindowd("image"),
    SliceMinMaxd("image"),
]
SELECTIONS = [
    SliceRanged("image", "2:18"),
    InterSliceAnchorFilterd("image", 1e-4),
    SliceLimitd("image", 5),
    DownsampleSlicesd("image", 0.3),
]


def is_slice_major(image: torch.Tensor) -> bool:
    """Whether the pixels of a slice fill one stretch of memory and slices follow each other; (C, H, W, D)."""
    _, height, width, depth = image.shape
    pixels = sorted(zip(image.stride()[1:3], (height, width), strict=True))
    fastest, slowest = pixels
    contiguous = fastest[0] == 1 and slowest[0] == fastest[1]
    return contiguous and (depth == 1 or image.stride(3) >= height * width)


@pytest.fixture(scope="module")
def nifti(tmp_path_factory) -> str:
    """A NIfTI file of 20 slices whose axes have to be permuted and flipped, in [0, 255]."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 256, (13, 11, 20)) - np.where(np.arange(20) % 3 == 0, 100, 0)
    path = tmp_path_factory.mktemp("volume") / "ct.nii"
    affine = np.diag([-0.8, 0.9, -2.5, 1.0])
    nibabel.save(nibabel.Nifti1Image(voxels.clip(0, 255).astype(np.int16), affine), path)
    return str(path)


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: type(scaling).__name__)
def test_every_transform_keeps_slices_together(scaling, nifti):
    if isinstance(scaling, IntensityWindowsd) and scaling.array_form.windows == "auto":
        scaling = IntensityWindowsd("image", modality="mr")
    data = {"image": nifti}
    for transform in [*LOADING, scaling, *SELECTIONS]:
        data = transform(data)
        assert is_slice_major(data["image"]), transform
    assert 1 < data["image"].shape[-1] < 18


@pytest.mark.parametrize("source", ["ct_torso_dicom", "ct_torso_nifti/ct_small.nii.gz", "ct_head_tilted_dicom"])
def test_real_volumes(source, shared_data):
    data = {"image": str(shared_data(source))}
    kept = InterSliceAnchorFilterd("image", 0.04)
    for transform in [*LOADING, IntensityWindowsd("image", windows="medgemma"), kept]:
        data = transform(data)
        assert is_slice_major(data["image"]), transform


def test_images_without_geometry(tmp_path):
    path = tmp_path / "volume.npy"
    np.save(path, np.random.default_rng(0).random((1, 12, 9, 10), dtype=np.float32))
    data = {"image": str(path)}
    for transform in [*LOADING, IntensityWindowsd("image"), *SELECTIONS]:
        data = transform(data)
        assert is_slice_major(data["image"]), transform


@pytest.mark.parametrize("select", [SliceRanged("image", "3:9"), InterSliceAnchorFilterd("image", 0.3)])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 0, 2, 1), (3, 1, 2, 0), (1, 2, 3, 0)])
def test_a_selection_keeps_the_order_that_a_volume_came_in(order, select):
    values = torch.rand(2, 9, 10, 12, generator=torch.Generator().manual_seed(0))
    image = values.permute(order).contiguous().permute(np.argsort(order).tolist())
    out = select({"image": image})["image"]
    kept = out.meta["kept_indices"]
    assert torch.equal(out.as_tensor(), values[..., kept])
    by_stride = sorted(range(4), key=out.stride, reverse=True)
    assert by_stride == list(order)
    restored = Compose([select]).inverse({"image": out})["image"]
    assert torch.equal(restored.as_tensor()[..., kept], values[..., kept])


def test_a_batch_keeps_slices_together(nifti):
    pipeline = Compose([*LOADING, PercentileWindowd("image"), SliceRanged("image", "2:9")])
    deep, shallow = pipeline({"image": nifti}), SliceRanged("image", "0:4")(pipeline({"image": nifti}))
    batch = collate_volumes([deep, shallow])["image"]
    assert is_slice_major(batch[0])
    assert is_slice_major(batch[1])
    torch.testing.assert_close(batch[0].as_tensor(), deep["image"].as_tensor())
    torch.testing.assert_close(batch[1, ..., :4].as_tensor(), shallow["image"].as_tensor())
    assert not batch[1, ..., 4:].any()
    torch.testing.assert_close(batch[0].affine, deep["image"].affine)
