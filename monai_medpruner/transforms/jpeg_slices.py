# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Send every slice through JPEG, as recipes do that hand images over in a request."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_tensor
from PIL import Image

from monai_medpruner.errors import IntensityUnitsError, SettingsError, VolumeShapeError
from monai_medpruner.transforms.each_key import EachKeyd

__all__ = ["JpegSlices", "JpegSlicesD", "JpegSlicesDict", "JpegSlicesd"]


class JpegSlices(Transform):
    """Replace each slice by what JPEG leaves of it at Pillow's default quality (75, half the resolution in color).

    Google's CT notebook for MedGemma 1.5 encodes its slices so before they reach the image processor. Three channels
    are one image in red, green and blue; a single channel is a gray image. Runs after slices were chosen and resized.

    Args:
        jpeg: whether slices are encoded; False does nothing.

    Raises:
        SettingsError: ``jpeg`` is not a boolean.
        VolumeShapeError: when called on a volume that is not ``(1 or 3, H, W, D)``.
        IntensityUnitsError: when called on intensities outside [0, 1].
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012 - MONAI's convention

    def __init__(self, jpeg: bool = False) -> None:
        if not isinstance(jpeg, bool):
            raise SettingsError(f"jpeg must be true or false, got {jpeg!r}.")
        self.jpeg = jpeg

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Encode and decode the slices of ``img``.

        Args:
            img: ``(1 or 3, H, W, D)``, slices along the last axis, intensities in [0, 1].

        Returns:
            The same shape, float32, multiples of 1/255 in [0, 1], slices together in memory; ``img`` itself if nothing
            is to be done.
        """
        if not self.jpeg:
            return img
        if img.ndim != 4 or img.shape[0] not in (1, 3):
            raise VolumeShapeError(f"expected a volume of shape (1 or 3, H, W, D), got shape {tuple(img.shape)}.")
        image = convert_to_tensor(img, track_meta=get_track_meta())
        voxels = (image.as_tensor() if isinstance(image, MetaTensor) else image).detach()
        channels, height, width, depth = voxels.shape
        out = torch.empty(depth, channels, height, width, dtype=torch.float32, device=voxels.device)
        for index in range(depth):
            decoded = torch.from_numpy(_through_jpeg(_levels(voxels[..., index])))
            out[index] = decoded.permute(2, 0, 1).to(torch.float32) / 255
        moved = out.permute(1, 2, 3, 0)
        return MetaTensor(moved).copy_meta_from(image) if isinstance(image, MetaTensor) else moved


def _levels(voxels: torch.Tensor) -> np.ndarray:
    """Gray levels of a slice ``(C, H, W)`` in [0, 1], as ``(H, W, C)`` uint8."""
    low, high = (float(edge) for edge in voxels.aminmax())
    if not (low >= 0 and high <= 1):
        raise IntensityUnitsError(
            f"expected intensities in [0, 1], got {low:.4g} to {high:.4g}: put a window before JPEG (HUWindowsd)."
        )
    return (voxels.float() * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _through_jpeg(levels: np.ndarray) -> np.ndarray:
    """Encode and decode an image ``(H, W, 1 or 3)``, uint8."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(levels[..., 0] if levels.shape[2] == 1 else levels)).save(file, "JPEG")
    with Image.open(file) as decoded:
        return np.array(decoded).reshape(levels.shape)


class JpegSlicesd(EachKeyd):
    """Dictionary-based wrapper of :class:`JpegSlices`.

    Args:
        keys: volumes.
        jpeg: see :class:`JpegSlices`.
        allow_missing_keys: skip absent keys.
    """

    backend = JpegSlices.backend

    def __init__(self, keys: KeysCollection, jpeg: bool = False, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, JpegSlices(jpeg), allow_missing_keys)


JpegSlicesD = JpegSlicesDict = JpegSlicesd
