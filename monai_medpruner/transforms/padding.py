# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Voxels that were never measured: the padding around a scanner's round field of view, and the like."""

from __future__ import annotations

import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.utils import convert_to_tensor

from monai_medpruner.data.volume_meta import append_note
from monai_medpruner.transforms.check_volume import voxel_range

__all__ = ["hide_padding", "looks_like_hu", "padding_mask", "recorded_padding_mask"]

_LEAST_SHARE = 0.001  # of the voxels; fewer hardly move a percentile
_LOWEST_HU = -1100.0  # air is -1000 HU; noise and scanners' own limits reach a little lower
_HIGHEST_GAS_HU = -200.0  # below fat, about -100 HU
_LEAST_GAS = 0.01  # of the voxels of a CT are air, lung or bowel gas, where some lie below _LOWEST_HU
_MOST_NOISE = 0.05  # of the voxels of a CT lie below _LOWEST_HU and are no padding


def padding_mask(img: NdarrayOrTensor) -> tuple[torch.Tensor | None, str | None]:
    """Find the voxels that hold no measurement.

    These are what :func:`recorded_padding_mask` finds, where the header states a padding; else the lowest or highest
    value, where at least 0.1 % of the voxels hold exactly that value and it is farther from all others than they are
    from each other, or it is below -1100 in a volume of HU (``meta["modality"]`` is CT).

    Args:
        img: ``(1, H, W, D)``.

    Returns:
        bool mask ``(1, H, W, D)`` and a note; None and None where there is no padding, or nothing else.
    """
    if isinstance(img, MetaTensor) and "padding" in img.meta:
        return recorded_padding_mask(img)
    voxels = convert_to_tensor(img, track_meta=False).detach()
    value = _isolated(voxels, img.meta.get("modality") if isinstance(img, MetaTensor) else None)
    if value is None:
        return None, None
    return _mask(voxels, value, value, f"{value:g}, which looks like padding")


def recorded_padding_mask(img: NdarrayOrTensor) -> tuple[torch.Tensor | None, str | None]:
    """Find the voxels in the range ``meta["padding"]``: DICOM's PixelPaddingValue, in the volume's units.

    Args:
        img: ``(1, H, W, D)``.

    Returns:
        as :func:`padding_mask` returns it.
    """
    if not isinstance(img, MetaTensor) or "padding" not in img.meta:
        return None, None
    low, high = map(float, img.meta["padding"])
    name = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return _mask(convert_to_tensor(img, track_meta=False).detach(), low, high, f"{name}, the header's padding")


def _mask(voxels: torch.Tensor, low: float, high: float, name: str) -> tuple[torch.Tensor | None, str | None]:
    mask = (voxels >= low) & (voxels <= high)
    share = int(mask.count_nonzero()) / mask.numel()
    if share in (0.0, 1.0):
        return None, None
    return mask, f"{share:.1%} of the voxels are {name}: they are left out of the scaling and shown as black."


def hide_padding(out: torch.Tensor, mask: torch.Tensor | None, note: str | None) -> torch.Tensor:
    """Set padding to 0 in a scaled volume ``(K, H, W, D)``, in place, and record the note."""
    if mask is not None:
        plain = out.as_tensor() if isinstance(out, MetaTensor) else out
        for channel in plain:
            channel.masked_fill_(mask[0], 0.0)
        if note and isinstance(out, MetaTensor):
            append_note(out.meta, note)
    return out


def looks_like_hu(img: NdarrayOrTensor) -> bool:
    """Return whether voxels of unknown units could be HU, judging by air and lung below -200 HU.

    Padding below -1100 says nothing about units. Where other voxels lie there too, or no gas is left without them, the
    units are not HU (stored values without rescale intercept, MR phase).
    """
    voxels = convert_to_tensor(img, track_meta=False).detach()
    lowest, _ = voxel_range(img)
    if lowest >= _LOWEST_HU:
        return lowest < _HIGHEST_GAS_HU
    below = int(((voxels < _LOWEST_HU) & (voxels > lowest)).count_nonzero()) / voxels.numel()
    gas = int(((voxels >= _LOWEST_HU) & (voxels < _HIGHEST_GAS_HU)).count_nonzero()) / voxels.numel()
    return below <= _MOST_NOISE and gas >= _LEAST_GAS


def _isolated(voxels: torch.Tensor, modality: str | None) -> float | None:
    """Return the lowest or the highest value, where it stands apart from all others."""
    lowest, highest = voxel_range(voxels)
    least = _LEAST_SHARE * voxels.numel()
    if int((voxels == lowest).count_nonzero()) >= least and lowest < highest:
        following = min(float(torch.where(plane > lowest, plane, highest).min()) for plane in voxels.unbind(-1))
        beyond_hu = modality == "CT" and lowest < _LOWEST_HU <= following
        if beyond_hu or following - lowest > highest - following > 0:
            return lowest
    if int((voxels == highest).count_nonzero()) >= least and lowest < highest:
        previous = max(float(torch.where(plane < highest, plane, lowest).max()) for plane in voxels.unbind(-1))
        if highest - previous > previous - lowest > 0:
            return highest
    return None
