# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Scale every slice by its own minimum and maximum."""

from __future__ import annotations

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_tensor

from monai_medpruner.transforms.each_key import EachKeyd
from monai_medpruner.transforms.hu_windows import require_one_channel
from monai_medpruner.transforms.padding import hide_padding, padding_mask

__all__ = ["SliceMinMax", "SliceMinMaxD", "SliceMinMaxDict", "SliceMinMaxd"]


class SliceMinMax(Transform):
    """Scale each slice along the last axis to [0, 1] by its own minimum and maximum, as Hulu-Med does; any modality.

    A slice with one value throughout becomes 0. Intensities of different slices can no longer be compared. Padding
    (:func:`~.padding.padding_mask`) is left out of the minimum and maximum, becomes 0, and is noted.

    Raises:
        VolumeShapeError: when called on more than one channel.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's convention

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Scale ``img``.

        Args:
            img: ``(1, H, W, D)``, any dtype and unit.

        Returns:
            ``(1, H, W, D)`` float32 in [0, 1]; a MetaTensor with the metadata of ``img`` where metadata is tracked.
        """
        require_one_channel(img)
        image = convert_to_tensor(img, track_meta=get_track_meta())
        voxels = image.as_tensor() if isinstance(image, MetaTensor) else image
        out = voxels.to(torch.float32, copy=True)
        within = tuple(range(out.ndim - 1))
        padding, note = padding_mask(image)
        if padding is None:
            low, high = out.amin(within), out.amax(within)
        else:  # a slice of padding alone has no finite extremes; it becomes 0 in any case
            low = out.masked_fill(padding, torch.inf).amin(within).nan_to_num(posinf=0.0)
            high = out.masked_fill(padding, -torch.inf).amax(within).nan_to_num(neginf=0.0)
        # not 1: a slice may span less than that
        span = (high - low).clamp_min_(torch.finfo(out.dtype).tiny)
        out.sub_(low).div_(span).clamp_(0.0, 1.0)
        scaled = MetaTensor(out).copy_meta_from(image) if isinstance(image, MetaTensor) else out
        return hide_padding(scaled, padding, note)


class SliceMinMaxd(EachKeyd):
    """Dictionary-based wrapper of :class:`SliceMinMax`.

    Args:
        keys: volumes.
        allow_missing_keys: skip absent keys.
    """

    backend = SliceMinMax.backend

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, SliceMinMax(), allow_missing_keys)


SliceMinMaxD = SliceMinMaxDict = SliceMinMaxd
