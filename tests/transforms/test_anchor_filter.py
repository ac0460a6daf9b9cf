# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Which slices the anchor filter keeps: against a plain float64 loop, exactly at ties, in bounded memory."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch.utils._python_dispatch import TorchDispatchMode

from monai_medpruner.errors import NonFiniteVoxelsError, SettingsError, VolumeShapeError
from monai_medpruner.transforms import InterSliceAnchorFilter, anchor_rule

DTYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.uint8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.bool,
]


def plain_loop(volume: np.ndarray, gamma: float, axis: int = -1) -> list[int]:
    """Eq. 2 word for word, in float64."""
    slices = np.moveaxis(np.asarray(volume), axis, 0)
    kept = [0]
    for index in range(1, len(slices)):
        if np.abs(slices[index].astype(np.float64) - slices[kept[-1]].astype(np.float64)).mean() > gamma:
            kept.append(index)
    return kept


def drifting_volume(seed: int, shape: tuple[int, ...], axis: int = -1) -> np.ndarray:
    """Slices that drift apart in steps of very different size, so that some are kept and some are not."""
    rng = np.random.default_rng(seed)
    steps = (
        rng.standard_normal(shape)
        * rng.lognormal(size=shape)
        * rng.lognormal(-1, 1, size=shape[axis])[(slice(None), *[None] * (len(shape) - 1 - axis % len(shape)))]
    )
    return np.cumsum(steps, axis=axis)


def as_float64(volume: torch.Tensor) -> np.ndarray:
    return volume.to(torch.float64).numpy()


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 14), st.integers(1, 14), st.integers(1, 14)),
    spatial_dim=st.integers(-3, 2),
    layout=st.permutations(range(4)),
    dtype=st.sampled_from(DTYPES),
    gamma_share=st.floats(0.0, 3.0),
)
def test_keeps_the_slices_of_a_float64_loop_on_random_volumes(seed, shape, spatial_dim, layout, dtype, gamma_share):
    axis = spatial_dim if spatial_dim < 0 else spatial_dim + 1
    values = drifting_volume(seed, shape, axis) * (1 if dtype.is_floating_point else 20)
    lowest = 0 if dtype in (torch.uint8, torch.uint16) else -120
    volume = torch.as_tensor(values.clip(lowest, 250 if dtype != torch.int16 else 3000)).to(dtype)
    if dtype == torch.bool:
        volume = torch.as_tensor(values > 0)
    # the same volume in another memory order
    volume = volume.permute(layout).contiguous().permute(np.argsort(layout).tolist())
    gamma = gamma_share * float(np.abs(np.diff(as_float64(volume), axis=axis)).mean()) if shape[axis] > 1 else 0.1
    kept = InterSliceAnchorFilter(gamma, spatial_dim).kept_slices(volume)
    assert kept == plain_loop(as_float64(volume), gamma, axis)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(3))
def test_keeps_the_slices_of_a_float64_loop_over_several_strips(dtype, seed):
    values = torch.as_tensor(drifting_volume(seed, (2, 50, 61, 40)))
    volume = (values > 0) if dtype == torch.bool else (values * 10 + 100).clip(0, 250).to(dtype)
    steps = np.abs(np.diff(as_float64(volume), axis=-1)).mean()
    for gamma in (0.0, 0.3 * steps, steps, 2 * steps):
        assert InterSliceAnchorFilter(gamma).kept_slices(volume) == plain_loop(as_float64(volume), gamma)


@pytest.mark.parametrize(
    ("dtype", "offset"), [(torch.float64, 2.0**30), (torch.int32, 2**30), (torch.float32, 2.0**16)]
)
def test_small_steps_on_a_large_offset(dtype, offset):
    volume = (torch.as_tensor(drifting_volume(1, (1, 30, 31, 20))) * 10 + offset).to(dtype)
    kept = InterSliceAnchorFilter(8.0).kept_slices(volume)
    assert kept == plain_loop(as_float64(volume), 8.0)
    assert 1 < len(kept) < 20


@pytest.mark.parametrize("depth", [33, 128, 600])
@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int16])
def test_interleaved_slices_in_several_blocks(depth, crop, dtype):
    # more pixels than are transposed together; at depths of 128 they compete for the same cache lines
    volume = (torch.as_tensor(drifting_volume(depth, (2, 21, 23, depth))) * 100).to(dtype)
    volume = volume[:, 3:, 2:-1, 1:] if crop else volume
    gamma = 2.5 * float(np.abs(np.diff(as_float64(volume), axis=-1)).mean())
    kept = InterSliceAnchorFilter(gamma).kept_slices(volume)
    assert kept == plain_loop(as_float64(volume), gamma)
    assert 1 < len(kept) < depth / 2


def test_unevenly_spread_changes():
    # on every ninth pixel slices 1, 3, 5 … look far away, on others 4, 8, …
    volume = torch.zeros(1, 9, 60, 24)
    volume.view(-1, 24)[::9, 1::2] = 4.0
    volume.view(-1, 24)[1::9, 4::4] = 6.0
    for gamma in (0.3, 0.5, 0.7, 1.0):
        assert InterSliceAnchorFilter(gamma).kept_slices(volume) == plain_loop(volume.numpy(), gamma)


def two_slices(pixels: list[float], dtype: torch.dtype) -> torch.Tensor:
    """A slice of zeros and a slice of ``pixels``, repeated: every second distance is the mean of ``pixels``."""
    row = torch.tensor(pixels, dtype=torch.float64).to(dtype)
    return torch.stack([torch.zeros_like(row), row] * 3, dim=-1).reshape(1, -1, 7, 6)


@pytest.mark.parametrize("spatial_dim", [-1, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.025, 0.1, 1 / 3, 1e-3, 7.7])
@pytest.mark.parametrize("pattern", [(1.0,), (2.0, 0.0), (4.0, 0.0, 0.0, 0.0)])
def test_step_of_exactly_gamma_is_dropped_and_the_next_float_below_is_not(spatial_dim, dtype, gamma, pattern):
    gamma = float(torch.tensor(gamma, dtype=dtype))
    pixels = [gamma * factor for factor in pattern] * (7 * 4 * 23 // len(pattern))
    volume = two_slices(pixels, dtype)
    if spatial_dim == 0:
        volume = volume.movedim(-1, 1).contiguous()
    assert InterSliceAnchorFilter(gamma, spatial_dim).kept_slices(volume) == [0]
    below = float(np.nextafter(gamma, 0))
    assert InterSliceAnchorFilter(below, spatial_dim).kept_slices(volume) == list(range(6))


def test_float32_step_one_rounding_above_gamma_is_kept():
    gamma = np.float32(0.025)
    above = float(np.nextafter(gamma, np.float32(1)))
    volume = two_slices([above] * (7 * 900), torch.float32)
    assert InterSliceAnchorFilter(float(gamma)).kept_slices(volume) == list(range(6))


def test_integer_mean_equal_to_a_decimal_gamma_is_dropped():
    volume = two_slices([1.0] * 21 + [0.0] * 49, torch.uint8)
    assert InterSliceAnchorFilter(0.3).kept_slices(volume) == [0] == plain_loop(volume.numpy(), 0.3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.0, 1e300, allow_subnormal=True), min_size=1, max_size=40))
def test_exact_mean_is_that_of_rational_arithmetic(values):
    expected = float(sum(map(Fraction, values)) / len(values))
    assert anchor_rule.exact_mean(torch.tensor(values, dtype=torch.float64)) == expected


def test_huge_float32_values_do_not_overflow():
    volume = torch.tensor([-3e38, 3e38, 3e38], dtype=torch.float32).expand(1, 40, 40, 3).contiguous()
    assert InterSliceAnchorFilter(5e38).kept_slices(volume) == [0, 1]


@pytest.mark.parametrize(
    "convert", [lambda v: v, lambda v: v.numpy(), MetaTensor, lambda v: v.clone().requires_grad_()]
)
def test_every_container_gives_the_same_slices(convert):
    volume = torch.as_tensor(drifting_volume(5, (1, 9, 8, 12)), dtype=torch.float32)
    kept = InterSliceAnchorFilter(1.0).kept_slices(convert(volume))
    assert kept == plain_loop(volume.numpy(), 1.0)
    assert 1 < len(kept) < 12
    assert all(type(index) is int for index in kept)


def test_crop_and_flip_without_copy():
    volume = torch.as_tensor(drifting_volume(6, (1, 20, 20, 16)))[:, 3:17, 2:18, 1:14]
    expected = plain_loop(volume.numpy(), 1.5)
    assert InterSliceAnchorFilter(1.5).kept_slices(volume) == expected
    assert InterSliceAnchorFilter(1.5).kept_slices(volume.numpy()[:, ::-1]) == expected
    assert 1 < len(expected) < 13


def test_switched_off_keeps_every_slice():
    assert InterSliceAnchorFilter(None).kept_slices(torch.zeros(1, 4, 4, 5)) == [0, 1, 2, 3, 4]


def test_the_text_none_is_refused():
    with pytest.raises(SettingsError, match="or None to keep every slice, got 'none'"):
        InterSliceAnchorFilter("none")


@pytest.mark.parametrize("depth", [1, 6])
def test_never_fewer_than_one_slice(depth):
    assert InterSliceAnchorFilter(1e9).kept_slices(torch.rand(1, 5, 5, depth)) == [0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("spatial_dim", [0, -1])
def test_non_finite_voxels_are_refused(value, spatial_dim):
    volume = torch.rand(1, 6, 6, 6)
    volume[0, 2, 3, 4] = value
    with pytest.raises(NonFiniteVoxelsError, match="CheckVolume"):
        InterSliceAnchorFilter(0.1, spatial_dim).kept_slices(volume)


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf"), True, "0.1", [0.1]])
def test_bad_threshold(threshold):
    with pytest.raises(SettingsError, match="threshold"):
        InterSliceAnchorFilter(threshold)


@pytest.mark.parametrize("spatial_dim", [3, -4, 1.0, "1", True])
def test_bad_spatial_dim(spatial_dim):
    with pytest.raises(SettingsError, match="spatial_dim"):
        InterSliceAnchorFilter(0.1, spatial_dim).kept_slices(torch.rand(1, 4, 4, 4))


@pytest.mark.parametrize("shape", [(4,), (1, 4, 0, 3), (1, 4, 4, 0)])
def test_volume_without_voxels_or_slices(shape):
    with pytest.raises(VolumeShapeError, match="shape"):
        InterSliceAnchorFilter().kept_slices(torch.zeros(shape))


class LargestAllocation(TorchDispatchMode):
    """Notes the bytes of the largest tensor that an operation creates, apart from views of ``known``."""

    def __init__(self, known: torch.Tensor) -> None:
        super().__init__()
        self.known = known.untyped_storage().data_ptr()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() != self.known:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("slice_major", [False, True])
@pytest.mark.parametrize(("gamma", "far"), [(0.01, True), (0.9, True), (None, False)])
def test_no_temporary_of_the_volumes_size_and_no_slice_measured_exactly_far_from_gamma(
    gamma, far, slice_major, monkeypatch
):
    volume = torch.rand(1, 128, 128, 200, generator=torch.Generator().manual_seed(0))
    if slice_major:
        volume = volume.movedim(-1, 1).contiguous().movedim(1, -1)
    if gamma is None:  # two slices differ by 1/3 on average, and these two by exactly this
        gamma = float(np.abs(volume[..., 1].double() - volume[..., 0].double()).mean())
    exact = []
    measure = anchor_rule._difference
    monkeypatch.setattr(anchor_rule, "_difference", lambda *pair: exact.append(pair) or measure(*pair))
    with LargestAllocation(volume) as largest:
        kept = InterSliceAnchorFilter(gamma).kept_slices(volume)
    assert kept == plain_loop(volume.numpy(), gamma)
    assert 0 < largest.bytes <= volume.numel() * volume.element_size() / 8
    assert bool(exact) is not far


def ct(shared_data) -> np.ndarray:
    path = shared_data("ct_torso_nifti/ct.nii.gz")
    return ((np.asarray(nibabel.load(path).dataobj, dtype=np.float32) + 160) / 400).clip(0, 1)


def dicom(shared_data) -> np.ndarray:
    itk, pydicom = pytest.importorskip("itk"), pytest.importorskip("pydicom")
    files = [path for path in shared_data("ct_torso_dicom").iterdir() if path.is_file()]
    files.sort(key=lambda path: float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2]))
    slices = [np.squeeze(itk.array_from_image(itk.imread(str(path)))) for path in files]
    return np.stack(slices, axis=-1)  # HU, as stored


def mr(shared_data) -> np.ndarray:
    voxels = np.asarray(nibabel.load(shared_data("mr_torso_nifti/mr_small.nii.gz")).dataobj, dtype=np.float64)
    return voxels / np.percentile(voxels, 99.5)


@pytest.mark.parametrize("load", [ct, dicom, mr])
@pytest.mark.parametrize("spatial_dim", [-1, 0])
def test_keeps_the_slices_of_a_float64_loop_on_real_volumes(load, spatial_dim, shared_data):
    volume = np.ascontiguousarray(load(shared_data)[None])
    counts = []
    # shares of the mean step between neighbors, so that every unit and slice distance is served; and γ itself
    mean_step = float(np.abs(np.diff(volume.astype(np.float64), axis=-1)).mean())
    for gamma in (0.025, 0.05, 0.5 * mean_step, mean_step, 1.5 * mean_step, 2.5 * mean_step):
        kept = InterSliceAnchorFilter(gamma, spatial_dim).kept_slices(volume)
        assert kept == plain_loop(volume, gamma, spatial_dim if spatial_dim < 0 else spatial_dim + 1)
        counts.append(len(kept))
    assert len(set(counts)) > 2
    assert all(fewer <= more for more, fewer in pairwise(counts[2:]))
