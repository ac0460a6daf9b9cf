# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The image of a recorded study, read again as the run read it, and its windows for a reader's eye."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from monai_medpruner.data import VolumeReader
from monai_medpruner.errors import OutputFolderError, VolumeShapeError
from monai_medpruner.report.keep_map_files import recorded_arguments
from monai_medpruner.results import StudyRecord
from monai_medpruner.transforms import CheckVolume, IntensityWindows, LoadVolume, PercentileWindow, SlicePlane
from monai_medpruner.transforms.check_volume import voxel_range
from monai_medpruner.transforms.hu_windows import HU_WINDOWS, resolve_windows
from monai_medpruner.transforms.padding import looks_like_hu
from monai_medpruner.transforms.stored_range import STORED_RANGES

__all__ = ["MOST_WINDOWS", "StudyImage", "recorded_volume", "study_image", "study_mask", "study_windows"]

#: windows of a kept slice in a report
MOST_WINDOWS = 3
_Step = TypeVar("_Step", LoadVolume, CheckVolume, SlicePlane, IntensityWindows)
_VIEWING = ("soft_tissue", "lung", "bone")
_SAME_PLACE = 1e-2  # mm


@dataclass(frozen=True, eq=False)
class StudyImage:
    """The image of a study in the view of its record.

    Args:
        scaled: ``(C, H, W, D)`` in [0, 1], what slices were chosen by.
        names: of the windows, at most :data:`MOST_WINDOWS`; the run's own come first.
        windows: functions, one for each name: index of a slice -> uint8 ``(H, W)``.
    """

    scaled: MetaTensor
    names: tuple[str, ...]
    windows: tuple[Callable[[int], np.ndarray], ...]


def study_image(record: StudyRecord) -> StudyImage:
    """Read the image of a record by the transforms that its settings name.

    Raises:
        OutputFolderError: the image is another one than the record's, or the run did not read it from a file.
        VolumeReadError: it cannot be read.
    """
    volume: Any = _as_recorded(SlicePlane, record)(recorded_volume(record))
    window = _as_recorded(IntensityWindows, record)
    scaled: Any = window(volume)
    names = _own_names(_scaling(window, volume), scaled.shape[0])
    windows = [_channel(scaled, channel) for channel in range(scaled.shape[0])]
    for name, interval in _usual_windows(record, volume, names):
        names.append(name)
        windows.append(_viewing(volume, interval))
    return StudyImage(scaled, tuple(names[:MOST_WINDOWS]), tuple(windows[:MOST_WINDOWS]))


def recorded_volume(record: StudyRecord) -> MetaTensor:
    """Read the image of a record as its run read it, on the grid of its file.

    Returns:
        ``(1, X, Y, Z)`` float32, in the units of the file.

    Raises:
        OutputFolderError: the image is another one than the record's, or the run did not read it from a file.
        VolumeReadError: it cannot be read.
    """
    read: Any = _as_recorded(LoadVolume, record)(Path(record.image).expanduser())
    if read.meta.get("volume_id") != record.volume_id:
        raise OutputFolderError("the image is not the one of the record: its voxels or its affine were changed")
    return _as_recorded(CheckVolume, record)(read)  # type: ignore[return-value]


def study_windows(record: StudyRecord, volume: MetaTensor) -> list[tuple[str, tuple[float, float]]]:
    """Return windows as intervals of voxel values: what the model saw first, then the usual ones of a CT.

    Args:
        record: of the study.
        volume: of :func:`recorded_volume`.
    """
    setting = _scaling(_as_recorded(IntensityWindows, record), volume)
    if setting == "slice_minmax":
        return [("Range of the volume (the model saw each slice in its own)", voxel_range(volume))]
    if isinstance(setting, str) and setting in STORED_RANGES:
        intervals: tuple[tuple[float, float], ...] = ((0.0, STORED_RANGES[setting]),)
    elif setting == "percentile":
        intervals = (PercentileWindow().interval(volume),)
    else:
        intervals = resolve_windows(setting)  # type: ignore[arg-type]
    names = _own_names(setting, len(intervals))
    return [*zip(names, intervals, strict=True), *_usual_windows(record, volume, names)]


def _as_recorded(kind: type[_Step], record: StudyRecord) -> _Step:
    """A transform with the arguments that the record names."""
    arguments = recorded_arguments(record.settings, kind.__name__)
    if not arguments:
        raise OutputFolderError(f"the record names no {kind.__name__}: it does not say how the image was read")
    return kind(**{name: value for name, value in arguments.items() if name not in ("keys", "allow_missing_keys")})


def _scaling(window: IntensityWindows, volume: MetaTensor) -> object:
    """What "auto" stood for; else the setting itself."""
    if window.windows != "auto":
        return window.windows
    recorded, stored = volume.meta.get("modality"), volume.meta.get("intensity")
    if stored in STORED_RANGES and not window.assume_hu:
        return stored
    mr = window.modality == "mr" or (window.modality == "auto" and recorded == "MR")
    return "percentile" if mr else "soft_tissue"


def _own_names(setting: object, channels: int) -> list[str]:
    """Names of the channels that the model got."""
    if isinstance(setting, str) and setting in ("percentile", "slice_minmax", *STORED_RANGES):
        return [f"As the model saw it ({setting})"] * channels
    intervals = resolve_windows(setting)  # type: ignore[arg-type]
    if len(intervals) != channels:
        return ["As the model saw it"] * channels
    return [f"As the model saw it{_interval(one)}" for one in intervals]


def _usual_windows(
    record: StudyRecord, volume: MetaTensor, names: Sequence[str]
) -> list[tuple[str, tuple[float, float]]]:
    """Windows that a reader of CT uses, with their names, without those that are there already."""
    if (
        not looks_like_hu(volume)
        or record.modality not in (None, "CT")
        or volume.meta.get("intensity") in STORED_RANGES
    ):
        return []
    usual = [(name.replace("_", " ").capitalize(), HU_WINDOWS[name][0]) for name in _VIEWING]
    return [(name + _interval(one), one) for name, one in usual if not any(_interval(one) in known for known in names)]


def _interval(window: tuple[float, float]) -> str:
    return f", {window[0]:g} to {window[1]:g} HU".replace("-", "\N{MINUS SIGN}")


def _channel(scaled: torch.Tensor, channel: int) -> Callable[[int], np.ndarray]:
    return lambda index: _bytes(torch.as_tensor(scaled[channel, :, :, index]).numpy())


def _viewing(volume: torch.Tensor, window: tuple[float, float]) -> Callable[[int], np.ndarray]:
    low, high = window
    return lambda index: _bytes((torch.as_tensor(volume[0, :, :, index]).numpy() - low) / (high - low))


def _bytes(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def study_mask(path: Path, record: StudyRecord) -> np.ndarray:
    """Read a label map on the grid of a study, and turn it into the view of the record.

    Args:
        path: NIfTI file, or another that the reader knows, on the same grid as the image; its axes may run otherwise.
        record: of the study.

    Returns:
        int32 ``(H, W, D)``; 0 is no label.

    Raises:
        VolumeShapeError: the label map is on another grid.
        VolumeReadError: it cannot be read.
    """
    read = VolumeReader().read(path)
    viewed = record.geometry.affine.numpy()
    turn = nib.orientations.ornt_transform(nib.io_orientation(read.affine), nib.io_orientation(viewed))
    mask = nib.orientations.apply_orientation(read.voxels, turn)
    placed = read.affine @ nib.orientations.inv_ornt_aff(turn, read.voxels.shape)
    if mask.shape != record.geometry.shape or not np.allclose(placed, viewed, atol=_SAME_PLACE):
        raise VolumeShapeError(
            f"the mask is on another grid than the image: {mask.shape} voxels in the image's view, the image has "
            f"{record.geometry.shape}, or it lies elsewhere; resample it to the image first"
        )
    return np.rint(mask).astype(np.int32)
