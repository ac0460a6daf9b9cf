# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Choosing one of the DICOM series of a folder."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from monai_medpruner.data.dicom_frames import has_frames, unplaced
from monai_medpruner.data.dicom_header import SliceHeader
from monai_medpruner.errors import MixedSeriesError

__all__ = ["choose_series"]


def choose_series(headers: Sequence[SliceHeader], series_uid: str | None) -> tuple[list[SliceHeader], list[str]]:
    """Return the files of the requested series, or of the only one that can be a volume; raise rather than guess.

    Args:
        headers: of all files of the folder.
        series_uid: SeriesInstanceUID; None where there is one.

    Returns:
        the files, and notes on series that were passed over since they cannot be a volume: localizers, images in color,
        images without a position in the patient.

    Raises:
        MixedSeriesError: there are several series, and ``series_uid`` is None or not among them. The text lists them.
    """
    series: dict[str, list[SliceHeader]] = defaultdict(list)
    for header in headers:
        series[header.series_uid].append(header)
    if series_uid is None and len(series) == 1:
        return list(headers), []
    if series_uid in series:
        return series[series_uid], []
    faults = {uid: _fault(own) for uid, own in series.items()}
    volumes = [uid for uid, fault in faults.items() if fault is None]
    if series_uid is None and len(volumes) == 1:
        counts = Counter(fault for fault in faults.values() if fault)
        listed = ", ".join(f"{fault} ({count})" for fault, count in sorted(counts.items()))
        return series[volumes[0]], [f"series that are no volume were passed over: {listed}"]
    listing = "; ".join(_described(uid, own, faults[uid]) for uid, own in sorted(series.items()))
    found = f"{len(series)} DICOM series" if series_uid is None else f"no DICOM series {series_uid}"
    raise MixedSeriesError(f"the folder contains {found}. Choose one with series_uid (--series_uid). Found: {listing}")


def _fault(slices: Sequence[SliceHeader]) -> str | None:
    """Why a series cannot be a volume; None if it can be one."""
    if all(one.is_localizer for one in slices):
        return "localizer"
    if all(one.channels != 1 for one in slices):
        return "in color"
    return "no positions in the patient" if all(has_frames(one) and unplaced(one) for one in slices) else None


def _described(uid: str, slices: Sequence[SliceHeader], fault: str | None) -> str:
    """A series without its descriptions, which may hold names."""
    frames = sum(one.shape[2] for one in slices)
    first = slices[0]
    parts = [
        f"{len(slices)} {'file' if len(slices) == 1 else 'files'}",
        *([f"{frames} frames"] if frames > len(slices) else []),
        first.modality or "unknown modality",
        f"{first.shape[0]} x {first.shape[1]} pixels",
        *([] if first.series_number is None else [f"series number {first.series_number}"]),
        *([fault] if fault else []),
    ]
    return f"{uid or '(no SeriesInstanceUID)'}: {', '.join(parts)}"
