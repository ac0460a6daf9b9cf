# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices as the 8-bit images that image processors take."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_medpruner.errors import IntensityUnitsError

__all__ = ["checked_voxels", "slice_images", "slice_levels"]


def slice_images(volume: torch.Tensor) -> list[Image.Image]:
    """Turn a volume ``(C, H, W, D)`` with intensities in [0, 1] into D RGB images of 8 bits.

    Raises:
        IntensityUnitsError: intensities lie outside [0, 1].
    """
    pixels = slice_levels(checked_voxels(volume)).permute(0, 2, 3, 1)
    rgb = np.ascontiguousarray(pixels.expand(-1, -1, -1, 3).cpu().numpy())
    return [Image.fromarray(one) for one in rgb]


def checked_voxels(volume: torch.Tensor) -> torch.Tensor:
    """A volume as a plain tensor.

    Raises:
        IntensityUnitsError: intensities lie outside [0, 1].
    """
    voxels = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    in_memory_order = voxels.permute(sorted(range(voxels.ndim), key=voxels.stride, reverse=True))
    low, high = (float(edge) for edge in in_memory_order.aminmax())
    if not (low >= 0 and high <= 1):
        raise IntensityUnitsError(
            f"expected intensities in [0, 1], got {low:.4g} to {high:.4g}; put a window before the network (HUWindowsd)"
        )
    return voxels


def slice_levels(voxels: torch.Tensor) -> torch.Tensor:
    """Gray levels ``(D, C, H, W)``, uint8, of voxels ``(C, H, W, D)`` in [0, 1]."""
    channels, height, width, count = voxels.shape
    levels = torch.empty(count, channels, height, width, dtype=torch.uint8, device=voxels.device)
    for index in range(count):  # one slice at a time stays in the cache
        levels[index] = (voxels[..., index].float() * 255).round_()
    return levels
