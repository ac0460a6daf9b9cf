# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The gate: what passes unchanged, and what is refused with which words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_medpruner.errors import (
    NonFiniteVoxelsError,
    SpacingError,
    TooFewSlicesError,
    VolumeShapeError,
    ZeroVarianceError,
)
from monai_medpruner.transforms import CheckVolume, CheckVolumed
from monai_medpruner.transforms.check_volume import voxel_range

DTYPES = ["float16", "float32", "float64", "uint8", "int16", "uint16", "int32", "int64"]


def volume(dtype: str = "float32") -> torch.Tensor:
    return torch.arange(2 * 3 * 4).reshape(1, 2, 3, 4).to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16"])
@pytest.mark.parametrize("layout", [(0, 1, 2, 3), (0, 3, 2, 1)])
def test_good_volume_passes_as_the_same_object(dtype, layout):
    image = MetaTensor(volume(dtype).permute(layout), meta={"pixdim": np.array([-1.0, 0.5, 0.5, 2.0, 0.0])})
    assert CheckVolume()(image) is image
    assert voxel_range(image) == (0.0, 23.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_array_passes_as_the_same_object(dtype):
    image = volume().numpy().astype(dtype)[:, ::-1]
    assert CheckVolume()(image) is image


def test_mask_with_both_values_passes():
    mask = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    mask[0, 1, 2, 3] = True
    assert CheckVolume()(mask) is mask


@pytest.mark.parametrize("convert", [torch.as_tensor, np.asarray, MetaTensor])
@pytest.mark.parametrize("values", [[float("nan")], [float("inf")], [float("-inf")], [float("nan"), float("inf")] * 2])
def test_non_finite_voxels_are_counted(convert, values):
    image = volume()
    image.view(-1)[5 : 5 + 3 * len(values) : 3] = torch.tensor(values)
    with pytest.raises(NonFiniteVoxelsError, match=rf"^{len(values)} of 24 voxels are NaN or infinite"):
        CheckVolume()(convert(image))


@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 5), (1, 1, 3, 4, 5)])
def test_other_than_four_dimensions(shape):
    with pytest.raises(VolumeShapeError, match=rf"got {len(shape)} dimensions"):
        CheckVolume()(torch.rand(shape))


def test_no_voxels():
    with pytest.raises(VolumeShapeError, match="no voxels"):
        CheckVolume()(torch.zeros(1, 4, 4, 0))


def test_several_channels_tell_of_four_dimensional_files():
    with pytest.raises(VolumeShapeError, match=r"one channel, got 3.*4-D series \(time, diffusion\) or in color"):
        CheckVolume()(torch.rand(3, 4, 4, 4))


@pytest.mark.parametrize("shape", [(1, 4, 4, 1), (1, 1, 4, 4)])
def test_single_slice(shape):
    with pytest.raises(TooFewSlicesError, match="stack of slices, got a single one"):
        CheckVolume()(torch.rand(shape))


@pytest.mark.parametrize("value", [0.0, -1000.0, 2.0**24 + 2])
def test_zero_variance(value):
    with pytest.raises(ZeroVarianceError, match="all voxels are"):
        CheckVolume()(torch.full((1, 3, 4, 5), value))


def test_a_difference_below_float32_resolution_is_a_difference():
    image = torch.full((1, 3, 4, 5), 2**24, dtype=torch.int32)
    image[0, 0, 0, 0] += 1
    assert CheckVolume()(image) is image


@pytest.mark.parametrize(
    ("affine", "found"),
    [
        (np.diag([1.0, 0.0, 1.0, 1.0]), r"the affine gives a voxel spacing of \[1.0, 0.0, 1.0\] mm"),
        (np.diag([1.0, np.nan, 1.0, 1.0]), "NaN or infinite"),
        (np.diag([np.inf, 1.0, 1.0, 1.0]), "NaN or infinite"),
        (np.array([[1.0, 2.0, 0, 0], [0, 0, 1.0, 0], [1.0, 2.0, 0, 0], [0, 0, 0, 1.0]]), "parallel"),
    ],
)
def test_bad_affine(affine, found):
    with pytest.raises(SpacingError, match=found):
        CheckVolume()(MetaTensor(volume(), affine=torch.as_tensor(affine)))


@pytest.mark.parametrize("bad", [0.0, -2.0, float("nan"), float("inf")])
def test_bad_header_spacing(bad):
    with pytest.raises(SpacingError, match="pixdim gives a voxel spacing"):
        CheckVolume()(MetaTensor(volume(), meta={"pixdim": np.array([1.0, 1.0, 1.0, bad, 0.0, 0.0, 0.0, 0.0])}))


def test_flipped_and_oblique_affines_pass():
    affine = torch.diag(torch.tensor([-0.7, -0.7, 3.0, 1.0], dtype=torch.float64))
    affine[0, 2], affine[:3, 3] = 0.8, torch.tensor([100.0, 50.0, -900.0])
    image = MetaTensor(volume(), affine=affine)
    assert CheckVolume()(image) is image


def test_dictionary_form():
    image = volume()
    check = CheckVolumed(["image", "absent"], allow_missing_keys=True)
    assert check({"image": image, "other": 0}) == {"image": image, "other": 0}
    with pytest.raises(VolumeShapeError):
        check({"image": image[0]})
    with pytest.raises(KeyError):
        CheckVolumed("image")({})
