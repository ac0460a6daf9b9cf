# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The gate in front of everything: what cannot be a volume is refused before it is windowed and filtered."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_tensor

from monai_medpruner.errors import (
    NonFiniteVoxelsError,
    SpacingError,
    TooFewSlicesError,
    VolumeShapeError,
    ZeroVarianceError,
)
from monai_medpruner.transforms.each_key import EachKeyd

__all__ = ["CheckVolume", "CheckVolumeD", "CheckVolumeDict", "CheckVolumed", "voxel_range"]

_NO_EXTREMES = (torch.bool, torch.uint16, torch.uint32, torch.uint64)  # torch.aminmax does not take these


class CheckVolume(Transform):
    """Refuse a volume that the later stages would misread; return it unchanged otherwise.

    Runs right after loading, before windowing. No temporary of the volume's size is made.

    Raises:
        VolumeShapeError: not ``(1, H, W, D)``, or without voxels. A 4-D NIfTI (time, diffusion) and color arrive as
            several channels.
        TooFewSlicesError: an axis has a single voxel.
        SpacingError: spacing (columns of the affine, ``meta["pixdim"]``) that is zero, negative or not finite, or an
            affine that maps the volume onto a plane.
        NonFiniteVoxelsError: NaN or infinite voxels; the message counts them.
        ZeroVarianceError: all voxels have the same value.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 - MONAI's convention

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Check and return ``img`` itself.

        Args:
            img: volume of shape ``(1, H, W, D)``, any dtype; spacing is checked for a MetaTensor.
        """
        _check_shape(tuple(img.shape))
        if isinstance(img, MetaTensor):
            _check_spacing(img)
        low, high = voxel_range(img)
        if not (np.isfinite(low) and np.isfinite(high)):
            planes = _planes(_voxels(img))
            count = sum(int(plane.numel() - torch.isfinite(plane).sum()) for plane in planes)
            raise NonFiniteVoxelsError(
                f"{count} of {img.shape.numel() if isinstance(img, torch.Tensor) else img.size} voxels are NaN or "
                "infinite: repair or convert the volume again; scaling would spread them."
            )
        if low == high:
            raise ZeroVarianceError(f"all voxels are {low:g}: the volume is empty, or was masked or converted wrongly.")
        return img


def voxel_range(img: NdarrayOrTensor) -> tuple[float, float]:
    """Smallest and largest voxel, without a temporary of the volume's size; NaN where any voxel is NaN.

    Args:
        img: volume of any shape with at least two axes and one voxel.
    """
    extremes = [[float(value) for value in torch.aminmax(plane)] for plane in _planes(_voxels(img))]
    lowest, highest = np.asarray(extremes).T  # numpy's extremes are NaN where any value is
    return float(lowest.min()), float(highest.max())


def _voxels(img: NdarrayOrTensor) -> torch.Tensor:
    return convert_to_tensor(img, track_meta=False).detach()


def _planes(voxels: torch.Tensor) -> Iterator[torch.Tensor]:
    """Pieces of the volume that lie together in memory, in a dtype that torch can compare."""
    outermost = max(range(voxels.ndim), key=lambda axis: (voxels.shape[axis] > 1, voxels.stride(axis)))
    for plane in voxels.unbind(outermost):
        yield plane.to(torch.int64) if plane.dtype in _NO_EXTREMES else plane


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 4:
        raise VolumeShapeError(
            f"expected a volume of shape (1, H, W, D), got {len(shape)} dimensions, shape {shape}: "
            "load one volume, channel first."
        )
    if 0 in shape:
        raise VolumeShapeError(f"the volume has no voxels, shape {shape}.")
    if shape[0] != 1:
        raise VolumeShapeError(
            f"expected one channel, got {shape[0]}, shape {shape}: the file is a 4-D series (time, diffusion) or in "
            "color; extract one 3-D volume."
        )
    if 1 in shape[1:]:
        raise TooFewSlicesError(f"expected a stack of slices, got a single one, shape {shape[1:]}: load the series.")


def _check_spacing(img: MetaTensor) -> None:
    affine = img.affine.to(torch.float64)
    if not bool(torch.isfinite(affine).all()):
        raise SpacingError("the affine holds NaN or infinite values: the header's geometry is unusable.")
    spacing = torch.linalg.vector_norm(affine[:3, :3], dim=0)
    named = {"the affine": spacing.tolist()}
    if "pixdim" in img.meta:
        named["the header's pixdim"] = np.asarray(img.meta["pixdim"], dtype=np.float64).reshape(-1)[1:4].tolist()
    for source, values in named.items():
        if not all(np.isfinite(value) and value > 0 for value in values):
            raise SpacingError(f"{source} gives a voxel spacing of {values} mm: expected three positive numbers.")
    if abs(float(torch.linalg.det(affine[:3, :3] / spacing))) < 1e-6:
        raise SpacingError("two axes of the affine are parallel: the header's geometry is unusable.")


class CheckVolumed(EachKeyd):
    """Dictionary-based wrapper of :class:`CheckVolume`.

    Args:
        keys: volumes to check.
        allow_missing_keys: skip absent keys.
    """

    backend = CheckVolume.backend

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, CheckVolume(), allow_missing_keys)


CheckVolumeD = CheckVolumeDict = CheckVolumed
