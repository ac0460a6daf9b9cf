# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

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
