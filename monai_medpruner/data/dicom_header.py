# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Reading the header of a single DICOM file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import itk

from monai_medpruner.errors import UnreadableVolumeError

__all__ = ["SliceHeader", "is_dicom", "read_slice_header"]

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


@dataclass(frozen=True)
class SliceHeader:
    """Header fields of one DICOM slice; absent fields are None unless stated otherwise.

    Attributes:
        path: the file.
        series_uid: SeriesInstanceUID; empty if absent.
        modality: Modality; empty if absent.
        shape: numbers of columns, rows and frames.
        channels: samples per pixel.
        position: ImagePositionPatient, LPS mm.
        orientation: ImageOrientationPatient, the direction of a row, then of a column.
        pixel_spacing: PixelSpacing in mm, between rows, then between columns.
        thickness: SliceThickness in mm.
        tilt: GantryDetectorTilt in degrees, as stated by the scanner.
        rescale: RescaleSlope and RescaleIntercept, each None if absent.
        inverted_sum: for MONOCHROME1, the sum of a stored value and its inversion by GDCM; otherwise None.
    """

    path: Path
    series_uid: str
    modality: str
    shape: tuple[int, int, int]
    channels: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    thickness: float | None
    tilt: float | None
    rescale: tuple[float | None, float | None]
    inverted_sum: int | None


def is_dicom(path: Path) -> bool:
    """Return whether a file has the DICOM magic number."""
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def read_slice_header(path: Path) -> SliceHeader | None:
    """Read the header of one file.

    Args:
        path: any file.

    Returns:
        the header of a DICOM image, or None for any other file, including a DICOMDIR.

    Raises:
        UnreadableVolumeError: if the file should be a DICOM image, judging by its magic number or name, but cannot be
            read as one, or if a numeric field of its header is not a number.
    """
    magic = is_dicom(path)
    if magic and path.name.upper() == "DICOMDIR":
        return None
    io = itk.GDCMImageIO.New()
    io.SetFileName(str(path))
    try:
        if io.CanReadFile(str(path)):
            io.ReadImageInformation()
            return _parse_header(path, io)
        cause = None
    except RuntimeError as error:  # GDCM's error for a damaged header
        cause = error
    # Exported files are often named by number or UID: an empty file without a real suffix is a failed copy of an image.
    unnamed = path.stat().st_size == 0 and (not path.suffix or path.suffix[1:].isdigit())
    if cause is None and not (magic or unnamed or path.suffix.lower() in _DICOM_SUFFIXES):
        return None
    raise UnreadableVolumeError(
        f"{path.name} should be a DICOM image but cannot be decoded: it is empty, truncated, damaged, or contains no "
        "image. Copy the series again, or move the file out of the folder if it is not an image."
    ) from cause


def _parse_header(path: Path, io: Any) -> SliceHeader:
    dictionary = io.GetMetaDataDictionary()

    def text(tag: str) -> str:
        return str(dictionary[tag]).strip(" \0") if dictionary.HasKey(tag) else ""

    def numbers(tag: str, count: int) -> tuple[float, ...] | None:
        if not text(tag):
            return None
        try:
            values = tuple(float(i) for i in text(tag).split("\\"))
        except ValueError as error:
            raise UnreadableVolumeError(f"{path.name}: DICOM tag ({tag.replace('|', ',')}) is not a number") from error
        if len(values) != count or not all(math.isfinite(i) for i in values):
            raise UnreadableVolumeError(
                f"{path.name}: DICOM tag ({tag.replace('|', ',')}) must contain {count} finite numbers, found {values}"
            )
        return values

    def number(tag: str) -> float | None:
        values = numbers(tag, 1)
        return None if values is None else values[0]

    sizes = [int(io.GetDimensions(i)) for i in range(io.GetNumberOfDimensions())] + [1]
    signed = number("0028|0103") == 1
    bits = int(number("0028|0101") or 0)
    return SliceHeader(
        path=path,
        series_uid=text("0020|000e"),
        modality=text("0008|0060"),
        shape=(sizes[0], sizes[1], sizes[2]),
        channels=int(io.GetNumberOfComponents()),
        position=numbers("0020|0032", 3),
        orientation=numbers("0020|0037", 6),
        pixel_spacing=numbers("0028|0030", 2),
        thickness=number("0018|0050"),
        tilt=number("0018|1120"),
        rescale=(number("0028|1053"), number("0028|1052")),
        inverted_sum=(-1 if signed else 2**bits - 1) if text("0028|0004") == "MONOCHROME1" else None,
    )
