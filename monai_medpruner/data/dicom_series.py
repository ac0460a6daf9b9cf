# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Reading a DICOM series: every file becomes one slice at its position, or a typed error states the reason.

ITK decodes single files. This module groups and orders them by SeriesInstanceUID and position along the slice normal,
because ITK's series reader drops slices, and instance numbers and file names are not reliable.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_medpruner.data.dicom_decoding import DicomDecoding, StoredSlice, decode_pixels
from monai_medpruner.data.dicom_frames import expand_frames, has_frames
from monai_medpruner.data.dicom_header import SliceHeader, read_slice_headers
from monai_medpruner.data.dicom_objects import passed_over_note
from monai_medpruner.data.dicom_pixels import check_stored_pixels
from monai_medpruner.data.dicom_units import check_rescale, series_units
from monai_medpruner.data.instance_order import instance_order
from monai_medpruner.data.reading_limits import ReadingLimits
from monai_medpruner.data.series_choice import choose_series
from monai_medpruner.data.series_files import may_belong, series_files
from monai_medpruner.data.series_parts import choose_part
from monai_medpruner.data.slice_geometry import SliceStack, stack_slices
from monai_medpruner.errors import (
    EmptyFolderError,
    IncompleteSeriesError,
    SliceGeometryError,
    UnreadableVolumeError,
    VolumeShapeError,
)
from monai_medpruner.memory import check_fits_memory

__all__ = ["find_series", "read_dicom", "slice_sources"]

#: bytes that decoding takes for each voxel of a file of several frames
_FRAME_BYTES = 16
#: columns and rows, not frames; directions of a row and a column; two spacings
_FIELD_LENGTHS = {"shape": 2, "orientation": 6, "pixel_spacing": 2}
_OTHER_GRID = {
    "files": "Move them out of the folder.",
    "frames": "Convert the object to one file per volume, or to NIfTI.",
}


def read_dicom(
    path: Path,
    series_uid: str | None = None,
    decoding: DicomDecoding | None = None,
    series_part: int | None = None,
    limits: ReadingLimits | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read one DICOM series of a folder, or a single file: one slice, or the frames of a multi-frame object.

    Args:
        path: file, or folder, or the directory file of a CD (DICOMDIR) for its folder. Subfolders are searched only if
            the folder contains a DICOMDIR, or no DICOM image, as the top folder of a CD does.
        series_uid: SeriesInstanceUID to read; required if the folder contains several series that can be volumes.
        series_part: number of the volume to read, from 1, of a series that contains several, such as contrast phases or
            echoes; required there.
        decoding: where and within what limits the files are decoded; None for the defaults of
            :py:class:`DicomDecoding`.
        limits: the largest volume to read; None for the defaults.

    Returns:
        voxels (columns, rows, slices), float32, stored values times RescaleSlope plus RescaleIntercept; affine (4, 4)
        float64, RAS mm; metadata ``modality``, ``slice_axis``, ``slice_positions_mm``, ``nonuniform``,
        ``gantry_tilt_degrees`` (only if tilted), ``padding`` (only if stated: lowest and highest padding value, in the
        units of the voxels), ``units`` (only of a CT whose header does not say HU: what it says instead) and ``notes``.

    Raises:
        EmptyFolderError: if the folder contains no DICOM image.
        MixedSeriesError: if it contains several series and ``series_uid`` is None or not among them, or a series of
            several volumes and ``series_part`` is None or not among them.
        UnreadableVolumeError: if a file is damaged, ends the decoder, exceeds a limit, holds fewer pixels than its
            header states, or lacks fields needed to place its voxels.
        VolumeLimitError: if the volume is larger than ``limits``.
        IncompleteSeriesError: if some files of the series cannot be used as slices.
        SliceGeometryError: if the slices differ in size, pixel spacing or orientation.
        DuplicateSlicesError: if two slices have the same position.
        VolumeShapeError: if the pixels are not scalar.
        IntensityUnitsError: if the slices state different units, or one was rescaled in a way that does not fit its
            neighbors.
    """
    decoding = decoding or DicomDecoding.from_environment()
    slices, notes = _chosen_slices(path, series_uid, decoding, series_part)
    units, unit_notes = series_units(slices)
    notes += unit_notes
    columns, rows, _ = slices[0].shape
    (limits or ReadingLimits()).check((columns, rows, len(slices)), path.name)
    check_fits_memory((columns, rows, len(slices)), 4)
    if (frames := max(one.shape[2] for one in slices)) > 1:  # which are decoded at once
        check_fits_memory((columns, rows, frames), _FRAME_BYTES)
    stack = _stacked(slices)
    slices = [slices[i] for i in stack.order]
    voxels = decode_pixels([_stored(one) for one in slices], (rows, columns), decoding)
    notes += check_rescale(slices, voxels)
    meta: dict[str, Any] = {"slice_axis": 2, "slice_positions_mm": stack.positions_mm, "nonuniform": stack.nonuniform}
    if units not in (None, "HU"):
        meta["units"] = units
    if slices[0].modality:
        meta["modality"] = slices[0].modality
    if stack.tilt_degrees is not None:
        meta["gantry_tilt_degrees"] = stack.tilt_degrees
    if (order := instance_order([i.instance_number for i in slices])) is not None:
        meta["instance_order"] = order
    if (padding := _padding(slices)) is not None:
        meta["padding"] = padding
    meta["notes"] = notes + stack.notes + _header_notes(slices, stack)
    return voxels.T, stack.affine, meta


def slice_sources(
    path: Path, series_uid: str | None = None, decoding: DicomDecoding | None = None, series_part: int | None = None
) -> list[tuple[Path, int | None]]:
    """Return where each slice of the volume comes from that :func:`read_dicom` reads, in the order of its third axis.

    Args:
        path: as there.
        series_uid: as there.
        decoding: as there.
        series_part: as there.

    Returns:
        Per slice its file, and the index of its frame in that file, from 0; None for a file that is one slice.

    Raises:
        VolumeReadError: as there.
        SliceGeometryError: as there.
        VolumeShapeError: as there.
    """
    slices, _ = _chosen_slices(path, series_uid, decoding or DicomDecoding.from_environment(), series_part)
    return [(slices[index].path, slices[index].frame) for index in _stacked(slices).order]


def _chosen_slices(
    path: Path, series_uid: str | None, decoding: DicomDecoding, series_part: int | None
) -> tuple[list[SliceHeader], list[str]]:
    """Return the slices of one volume, not yet in order, and notes on what was passed over."""
    files, notes = series_files(path)
    headers, found = find_series(files, path.name, decoding, series_uid)
    slices, passed_over = choose_series(headers, series_uid)
    slices = [frame for one in slices for frame in (expand_frames(one) if has_frames(one) else [one])]
    slices, localizers = _without_localizers(slices)
    slices = choose_part(slices, series_part)
    _check_slices(slices)
    return slices, notes + found + passed_over + localizers


def _stacked(slices: Sequence[SliceHeader]) -> SliceStack:
    return stack_slices(
        np.array([i.position for i in slices]),
        np.array(slices[0].orientation),
        np.array(slices[0].pixel_spacing),
        slices[0].thickness,
    )


def _without_localizers(slices: list[SliceHeader]) -> tuple[list[SliceHeader], list[str]]:
    """Leave out the localizers of a series that has other images as well."""
    others = [one for one in slices if not one.is_localizer]
    if not others or len(others) == len(slices):
        return slices, []
    return others, [f"localizers of the series were passed over: {len(slices) - len(others)}"]


def _stored(header: SliceHeader) -> StoredSlice:
    slope, intercept = header.rescale
    rescale = (1.0 if slope is None else slope, intercept or 0.0)
    return StoredSlice(header.path, header.inverted_sum, header.frame, rescale, header.shape[2])


def _padding(slices: Sequence[SliceHeader]) -> list[float] | None:
    """The padding that all slices state alike, in the units of the voxels."""
    stated = {(one.padding, one.rescale) for one in slices}
    if len(stated) != 1:
        return None
    ((padding, (slope, intercept)),) = stated
    if padding is None:
        return None
    values = [value * (1.0 if slope is None else slope) + (intercept or 0.0) for value in padding]
    return [min(values), max(values)]


def find_series(
    files: Sequence[Path], folder: str, decoding: DicomDecoding, series_uid: str | None = None
) -> tuple[list[SliceHeader], list[str]]:
    """Read the headers of all DICOM images among the given files.

    Args:
        files: any files.
        folder: name of their folder, for error messages.
        decoding: where and within what limits the files are decoded.
        series_uid: SeriesInstanceUID of the series that is wanted. Files of other series are not decoded where that
            series is found.

    Returns:
        the headers, and notes on files that are not DICOM images.

    Raises:
        EmptyFolderError: if none of the files is a DICOM image.
        UnreadableVolumeError: if a file should be a DICOM image, judging by its magic number or name, but is not
            readable, or if a file ends the decoder.
    """
    own = [one for one in files if may_belong(one, series_uid)]
    found = read_slice_headers(own, decoding)
    headers = [one for one in found if isinstance(one, SliceHeader)]
    if len(own) < len(files) and all(one.series_uid != series_uid for one in headers):
        return find_series(files, folder, decoding)  # to list what there is
    others = passed_over_note(one for one in found if isinstance(one, str))
    if not headers:
        hint = "Pass the folder of a DICOM series, or the path of a NIfTI file."
        raise EmptyFolderError(f"no DICOM image among the {len(files)} files of {folder}. {'; '.join([*others, hint])}")
    ignored = sum(one is None for one in found)
    return headers, [*others, *([f"files that are not DICOM images were ignored: {ignored}"] if ignored else [])]


def _check_slices(slices: Sequence[SliceHeader]) -> None:
    """Raise unless every file of the series is one slice of a common grid."""
    for header in {one.path: one for one in slices}.values():
        check_stored_pixels(header)
    if any(i.channels != 1 for i in slices):
        raise VolumeShapeError("the DICOM images are in color; expected one value per pixel")
    kind = "files" if all(i.frame is None for i in slices) else "frames"
    for name in ("position", "orientation", "pixel_spacing"):
        missing = [i.path.name for i in slices if getattr(i, name) is None]
        if missing:
            error = UnreadableVolumeError if len(missing) == len(slices) else IncompleteSeriesError
            raise error(
                f"{len(missing)} of {len(slices)} {kind} of the series have no {name.replace('_', ' ')}, which "
                f"is needed to place them in the volume; the first is {missing[0]}"
            )
    if any(i.rescale[0] == 0 for i in slices):
        raise UnreadableVolumeError("RescaleSlope is 0: the stored values cannot be converted to HU or other units")
    for name in ("shape", "orientation", "pixel_spacing"):
        values = np.array([getattr(i, name)[: _FIELD_LENGTHS[name]] for i in slices], dtype=float)
        differs = np.abs(values - np.median(values, axis=0)).max(axis=1) > 1e-3
        if differs.any():
            raise SliceGeometryError(
                f"{int(differs.sum())} of {len(slices)} {kind} of the series differ from the others in "
                f"{name.replace('_', ' ')} (a localizer?); the first is {slices[int(differs.argmax())].path.name}. "
                f"{_OTHER_GRID[kind]}"
            )


def _header_notes(slices: Sequence[SliceHeader], stack: SliceStack) -> list[str]:
    """Return notes on header fields other than the geometry."""
    notes = []
    kind = "files" if all(i.frame is None for i in slices) else "frames"
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
                f"no rescale {name} in {unscaled} of {len(slices)} {kind}: taken as {neutral}, voxels may not be HU"
            )
    if any(i.inverted_sum is not None for i in slices):
        notes.append("MONOCHROME1: stored values are rescaled as they are, not inverted for display")
    return notes
