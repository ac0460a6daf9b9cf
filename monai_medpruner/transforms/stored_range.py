# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Volumes that were scaled before they were stored: to [0, 1], or to the 256 gray values of an image file."""

from __future__ import annotations

import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor

from monai_medpruner.errors import IntensityUnitsError
from monai_medpruner.transforms.check_volume import voxel_range
from monai_medpruner.transforms.hu_windows import rescale_channels

__all__ = ["STORED_RANGES", "scale_stored_range"]

#: name (``meta["intensity"]``) -> the value that stands for 1; 0 stands for 0
STORED_RANGES = {"unit": 1.0, "uint8": 255.0}


def scale_stored_range(img: NdarrayOrTensor, stored: str) -> torch.Tensor:
    """Divide by the end of the stored range, so that [0, 1] stays as it is and 0 to 255 becomes [0, 1].

    Args:
        img: ``(1, H, W, D)``.
        stored: a name in :data:`STORED_RANGES`.

    Returns:
        ``(1, H, W, D)`` float32 in [0, 1]; its ``meta["intensity"]`` is "unit".

    Raises:
        IntensityUnitsError: voxels lie outside the range: it is not what they are stored in.
    """
    low, high = voxel_range(img)
    end = STORED_RANGES[stored]
    if not (low >= 0 and high <= end):
        raise IntensityUnitsError(
            f"voxels reach from {low:g} to {high:g}, but values of {stored!r} lie in [0, {end:g}]: choose the windows "
            "that suit them, such as 'soft_tissue' for HU or 'percentile'."
        )
    out = rescale_channels(img, [(0.0, end)])
    if isinstance(out, MetaTensor):
        out.meta["intensity"] = "unit"
    return out
