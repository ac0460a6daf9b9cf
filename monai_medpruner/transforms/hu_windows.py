# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Hounsfield-unit windows: intervals of HU become channels in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_tensor

from monai_medpruner.errors import IntensityUnitsError, SettingsError, VolumeShapeError
from monai_medpruner.transforms.check_volume import voxel_range
from monai_medpruner.transforms.each_key import EachKeyd
from monai_medpruner.transforms.padding import hide_padding, recorded_padding_mask

__all__ = [
    "HU_WINDOWS",
    "HUWindows",
    "HUWindowsD",
    "HUWindowsDict",
    "HUWindowsd",
    "rescale_channels",
]

Windows = str | Sequence[str | Sequence[float]]

HU_WINDOWS: dict[str, tuple[tuple[float, float], ...]] = {
    # (low, high) = level -/+ width / 2; widths and levels as in Radiopaedia, "Windowing (CT)"
    "soft_tissue": ((-160.0, 240.0),),  # W 400, L 40
    "lung": ((-1350.0, 150.0),),  # W 1500, L -600
    "bone": ((-500.0, 1300.0),),  # W 1800, L 400
    "brain": ((0.0, 80.0),),  # W 80, L 40
    "mediastinum": ((-125.0, 225.0),),  # W 350, L 50
    # red, green, blue as in Google's CT notebook for MedGemma 1.5 (wide, soft tissue, brain)
    "medgemma": ((-1024.0, 1024.0), (-135.0, 215.0), (0.0, 80.0)),
}
"""Named windows: (low, high) in HU, one output channel each."""


def resolve_windows(windows: Windows) -> tuple[tuple[float, float], ...]:
    """Turn a preset's name, or a list of names and (low, high) pairs, into (low, high) pairs in HU.

    Raises:
        SettingsError: an unknown name, an empty list, or a pair that is not low < high.
    """
    pairs: list[tuple[float, float]] = []
    if not isinstance(windows, Sequence):
        raise SettingsError(f"windows must be a preset's name or a list of them or of pairs, got {windows!r}.")
    for window in [windows] if isinstance(windows, str) else windows:
        if isinstance(window, str):
            if window not in HU_WINDOWS:
                raise SettingsError(f"unknown window {window!r}: choose from {sorted(HU_WINDOWS)} or give (low, high).")
            pairs.extend(HU_WINDOWS[window])
        else:
            pairs.append(_pair(window))
    if not pairs:
        raise SettingsError("windows is empty: name a preset or give at least one (low, high) pair.")
    return tuple(pairs)


def _pair(window: Any) -> tuple[float, float]:
    numbers = tuple(window) if isinstance(window, Sequence) else (window,)
    if len(numbers) != 2 or any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in numbers):
        raise SettingsError(f"windows must hold preset names or (low, high) pairs, e.g. [[-160, 240]], got {window!r}.")
    low, high = (float(number) for number in numbers)
    if not (isfinite(low) and isfinite(high) and low < high):
        raise SettingsError(f"a window must be finite with low < high, got ({low:g}, {high:g}).")
    return low, high


def rescale_channels(img: NdarrayOrTensor, intervals: Sequence[tuple[float, float]]) -> torch.Tensor:
    """Map each interval (low, high) of a one-channel volume to [0, 1], clipped, as one float32 channel.

    Args:
        img: ``(1, H, W, D)``.
        intervals: K pairs in the units of ``img``.

    Returns:
        ``(K, H, W, D)`` float32 in [0, 1], each channel in the memory order of ``img``; a MetaTensor with the metadata
        of ``img`` where metadata is tracked.
    """
    image = convert_to_tensor(img, track_meta=get_track_meta())
    voxels = image.as_tensor() if isinstance(image, MetaTensor) else image
    strides = torch.empty_like(voxels[0], device="meta").stride()  # without gaps, as voxels[0] may have some
    out = torch.empty_strided(
        (len(intervals), *voxels.shape[1:]), (voxels[0].numel(), *strides), dtype=torch.float32, device=voxels.device
    )
    for channel, (low, high) in zip(out, intervals, strict=True):
        channel.copy_(voxels[0]).sub_(low).div_(high - low).clamp_(0.0, 1.0)
    return MetaTensor(out).copy_meta_from(image) if isinstance(image, MetaTensor) else out


def require_one_channel(img: NdarrayOrTensor) -> None:
    """Raise VolumeShapeError unless ``img`` has one channel and voxels."""
    if img.ndim < 2 or img.shape[0] != 1 or 0 in img.shape:
        raise VolumeShapeError(f"expected one channel, shape (1, H, W, D), got shape {tuple(img.shape)}.")


class HUWindows(Transform):
    """Show a CT volume through HU windows: each (low, high) becomes a channel ``clip((x - low) / (high - low), 0, 1)``.

    Padding that the header states (``meta["padding"]``) becomes 0, and is noted.

    Args:
        windows: a preset of :data:`HU_WINDOWS`, or a list of preset names and (low, high) pairs in HU.
        assume_hu: skip the test whether the voxels can be HU.

    Raises:
        SettingsError: ``windows`` is not as described.
        IntensityUnitsError: the voxels cannot be HU: ``meta["modality"]`` is not CT, ``meta["units"]`` says what else
            they are, or no voxel is below 0 (air is -1000 HU); not with ``assume_hu``.
        VolumeShapeError: more than one channel.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's convention

    def __init__(self, windows: Windows = "soft_tissue", assume_hu: bool = False) -> None:
        self.windows = resolve_windows(windows)
        self.assume_hu = assume_hu

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Apply the windows.

        Args:
            img: ``(1, H, W, D)`` in HU, any dtype.

        Returns:
            ``(K, H, W, D)`` float32 in [0, 1], one channel a window.
        """
        require_one_channel(img)
        if not self.assume_hu:
            self._check_units(img)
        padding, note = recorded_padding_mask(img)  # without a record, no window shows -2000 HU and air apart
        return hide_padding(rescale_channels(img, self.windows), padding, note)

    def _check_units(self, img: NdarrayOrTensor) -> None:
        modality = img.meta.get("modality") if isinstance(img, MetaTensor) else None
        if modality not in (None, "CT"):
            raise IntensityUnitsError(
                f"HU windows were asked for a volume of modality {modality}: only CT is in Hounsfield units. "
                "Use percentile scaling, or assume_hu=True if the modality is wrong."
            )
        units = img.meta.get("units") if isinstance(img, MetaTensor) else None
        if units not in (None, "modified HU", "unstated"):
            raise IntensityUnitsError(
                f"HU windows were asked for a CT whose header says that its values are {units}, not Hounsfield units. "
                "Use windows='percentile', or assume_hu=True if the header is wrong."
            )
        lowest, _ = voxel_range(img)
        if lowest >= 0:
            raise IntensityUnitsError(
                f"HU windows were asked for voxels that start at {lowest:g}: Hounsfield units reach down to -1000 in "
                "air. Apply the rescale intercept, use percentile scaling, or assume_hu=True if they are HU."
            )


class HUWindowsd(EachKeyd):
    """Dictionary-based wrapper of :class:`HUWindows`.

    Args:
        keys: CT volumes.
        windows: see :class:`HUWindows`.
        assume_hu: see :class:`HUWindows`.
        allow_missing_keys: skip absent keys.
    """

    backend = HUWindows.backend

    def __init__(
        self,
        keys: KeysCollection,
        windows: Windows = "soft_tissue",
        assume_hu: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, HUWindows(windows, assume_hu), allow_missing_keys)


HUWindowsD = HUWindowsDict = HUWindowsd
