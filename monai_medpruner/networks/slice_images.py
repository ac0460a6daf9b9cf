# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices as the images that image processors take."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_medpruner.errors import IntensityUnitsError

__all__ = ["slice_images"]


def slice_images(volume: torch.Tensor) -> list[Image.Image]:
    """Turn a volume ``(C, H, W, D)`` with intensities in [0, 1] into D RGB images of 8 bits.

    Raises:
        IntensityUnitsError: intensities lie outside [0, 1].
    """
    voxels = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    low, high = (float(edge) for edge in voxels.aminmax())
    if not (low >= 0 and high <= 1):
        raise IntensityUnitsError(
            f"expected intensities in [0, 1], got {low:.4g} to {high:.4g}; put a window before the network (HUWindowsd)"
        )
    pixels = (voxels.float() * 255).round().to(torch.uint8).permute(3, 1, 2, 0)
    rgb = np.ascontiguousarray(pixels.expand(-1, -1, -1, 3).cpu().numpy())
    return [Image.fromarray(one) for one in rgb]
