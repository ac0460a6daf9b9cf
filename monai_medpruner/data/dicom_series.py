# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Reading a DICOM series: every file becomes one slice at its position, or a typed error states the reason.

ITK decodes single files. This module groups and orders them by SeriesInstanceUID and position along the slice normal,
because ITK's series reader drops slices, and instance numbers and file names are not reliable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_medpruner.data.dicom_decoding import DicomDecoding, decode_pixels
from monai_medpruner.data.dicom_header import SliceHeader, read_slice_headers
from monai_medpruner.data.dicom_pixels import check_stored_pixels
from monai_medpruner.data.slice_geometry import SliceStack, stack_slices
from monai_medpruner.errors import (
    EmptyFolderError,
    IncompleteSeriesError,
    MixedSeriesError,
    SliceGeometryError,
    UnreadableVolumeError,
    VolumeShapeError,
)
from monai_medpruner.memory import check_fits_memory

__all__ = ["find_series", "read_dicom"]


def read_dicom(
    path: Path, series_uid: str | None = None, decoding: DicomDecoding | None = None
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read one DICOM series of a folder, or a single file as a stack of one slice.

    Args:
        path: file, or folder; files in subfolders are not read.
        series_uid: SeriesInstanceUID to read; required if the folder contains several series.
        decoding: where and within what limits the files are decoded; None for the defaults of
            :py:class:`DicomDecoding`.

    Returns:
        voxels (columns, rows, slices), float32, stored values times RescaleSlope plus RescaleIntercept; affine (4, 4)
        float64, RAS mm; metadata ``modality``, ``slice_axis``, ``slice_positions_mm``, ``nonuniform``,
        ``gantry_tilt_degrees`` (only if tilted) and ``notes``.

    Raises:
        EmptyFolderError: if the folder contains no DICOM image.
        MixedSeriesError: if it contains several series and ``series_uid`` is None or not among them.
        UnreadableVolumeError: if a file is damaged, ends the decoder, exceeds a limit, holds fewer pixels than its
            header states, or lacks fields needed to place its voxels.
        IncompleteSeriesError: if some files of the series cannot be used as slices.
        SliceGeometryError: if the slices differ in size, pixel spacing or orientation.
        DuplicateSlicesError: if two slices have the same position.
        VolumeShapeError: if the pixels are not scalar.
    """
    files = sorted(i for i in path.iterdir() if i.is_file()) if path.is_dir() else [path]
    decoding = decoding or DicomDecoding.from_environment()
    headers, notes = find_series(files, path.name, decoding)
    if path.is_dir() and (folders := sum(i.is_dir() for i in path.iterdir())):
        notes.append(f"subfolders are not searched: {folders}")
    slices = _choose_series(headers, series_uid)
    _check_slices(slices)
    shape = slices[0].shape
    check_fits_memory((shape[0], shape[1], len(slices)), 4)
    stack = stack_slices(
        np.array([i.position for i in slices]),
        np.array(slices[0].orientation),
        np.array(slices[0].pixel_spacing),
        slices[0].thickness,
    )
    slices = [slices[i] for i in stack.order]
    voxels = decode_pixels([(i.path, i.inverted_sum) for i in slices], (shape[1], shape[0]), decoding)
    meta: dict[str, Any] = {"slice_axis": 2, "slice_positions_mm": stack.positions_mm, "nonuniform": stack.nonuniform}
    if slices[0].modality:
        meta["modality"] = slices[0].modality
    if stack.tilt_degrees is not None:
        meta["gantry_tilt_degrees"] = stack.tilt_degrees
    meta["notes"] = notes + stack.notes + _header_notes(slices, stack)
    return voxels.T, stack.affine, meta


def find_series(files: Sequence[Path], folder: str, decoding: DicomDecoding) -> tuple[list[SliceHeader], list[str]]:
    """Read the headers of all DICOM images among the given files.

    Args:
        files: any files.
        folder: name of their folder, for error messages.
        decoding: where and within what limits the files are decoded.

    Returns:
        the headers, and a note on files that are not DICOM images.

    Raises:
        EmptyFolderError: if none of the files is a DICOM image.
        UnreadableVolumeError: if a file should be a DICOM image, judging by its magic number or name, but is not
            readable, or if a file ends the decoder.
    """
    headers = [header for header in read_slice_headers(files, decoding) if header is not None]
    ignored = len(files) - len(headers)
    if not headers:
        hint = "Pass the folder of a DICOM series, or the path of a NIfTI file."
        raise EmptyFolderError(f"no DICOM image among the {len(files)} files of {folder}. {hint}")
    return headers, [f"files that are not DICOM images were ignored: {ignored}"] if ignored else []


def _choose_series(headers: Sequence[SliceHeader], series_uid: str | None) -> list[SliceHeader]:
    """Return the files of the only series, or of the requested one; raise rather than guess."""
    series: dict[str, list[SliceHeader]] = defaultdict(list)
    for header in headers:
        series[header.series_uid].append(header)
    if series_uid is None and len(series) == 1:
        return list(headers)
    if series_uid in series:
        return series[series_uid]
    listing = "; ".join(
        f"{uid or '(no SeriesInstanceUID)'}: {len(i)} files, {i[0].modality or 'unknown modality'}"
        for uid, i in sorted(series.items())
    )
    found = f"{len(series)} DICOM series" if series_uid is None else f"no DICOM series {series_uid}"
    raise MixedSeriesError(f"the folder contains {found}. Choose one with series_uid (--series_uid). Found: {listing}")


def _check_slices(slices: Sequence[SliceHeader]) -> None:
    """Raise unless every file of the series is one slice of a common grid."""
    frames = max(i.shape[2] for i in slices)
    if frames > 1:
        raise UnreadableVolumeError(
            f"multi-frame DICOM ({frames} frames in a file) is not supported: frame positions are not available. "
            "Convert it to single-frame DICOM or to NIfTI."
        )
    for header in slices:
        check_stored_pixels(header)
    if any(i.channels != 1 for i in slices):
        raise VolumeShapeError("the DICOM images are in color; expected one value per pixel")
    for name in ("position", "orientation", "pixel_spacing"):
        missing = [i.path.name for i in slices if getattr(i, name) is None]
        if missing:
            error = UnreadableVolumeError if len(missing) == len(slices) else IncompleteSeriesError
            raise error(
                f"{len(missing)} of {len(slices)} files of the series have no {name.replace('_', ' ')}, which "
                f"is needed to place them in the volume; the first is {missing[0]}"
            )
    if any(i.rescale[0] == 0 for i in slices):
        raise UnreadableVolumeError("RescaleSlope is 0: the stored values cannot be converted to HU or other units")
    for name in ("shape", "orientation", "pixel_spacing"):
        values = np.array([getattr(i, name) for i in slices], dtype=float)
        differs = np.abs(values - np.median(values, axis=0)).max(axis=1) > 1e-3
        if differs.any():
            raise SliceGeometryError(
                f"{int(differs.sum())} of {len(slices)} files of the series differ from the others in "
                f"{name.replace('_', ' ')} (a localizer?); the first is {slices[int(differs.argmax())].path.name}. "
                "Move them out of the folder."
            )


def _header_notes(slices: Sequence[SliceHeader], stack: SliceStack) -> list[str]:
    """Return notes on header fields other than the geometry."""
    notes = []
    thicknesses = sorted({i.thickness for i in slices if i.thickness is not None})
    if len(thicknesses) > 1:
        notes.append(f"slice thickness varies: {', '.join(f'{i:g}' for i in thicknesses)} mm")
    stated = sorted({abs(i.tilt) for i in slices if i.tilt})
    if any(abs(i - (stack.tilt_degrees or 0.0)) > 0.5 for i in stated):
        notes.append(
            f"the header states a gantry tilt of {', '.join(f'{i:g}' for i in stated)} degrees, "
            f"the slice positions {stack.tilt_degrees or 0.0:.1f}: the positions are followed"
        )
    for index, (name, neutral) in enumerate((("slope", 1), ("intercept", 0))):
        unscaled = sum(i.rescale[index] is None for i in slices)
        if unscaled and slices[0].modality == "CT":
            notes.append(
                f"no rescale {name} in {unscaled} of {len(slices)} files: taken as {neutral}, voxels may not be HU"
            )
    if any(i.inverted_sum is not None for i in slices):
        notes.append("MONOCHROME1: stored values are rescaled as they are, not inverted for display")
    return notes
