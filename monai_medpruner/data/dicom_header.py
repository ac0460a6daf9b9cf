# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Reading the headers of DICOM files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_medpruner.data.dicom_decoding import DicomDecoding, decode_headers
from monai_medpruner.data.dicom_elements import ElementError, read_stored_pixels
from monai_medpruner.data.dicom_objects import non_image_kind
from monai_medpruner.data.instance_order import whole_number
from monai_medpruner.data.series_files import is_dicom
from monai_medpruner.errors import UnreadableVolumeError

__all__ = ["PART_FIELDS", "SliceHeader", "read_slice_headers"]

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
#: fields that tell apart the volumes of one series, by name, in the order in which they are tried
PART_FIELDS = {
    "StackID": "0020|9056",
    "AcquisitionNumber": "0020|0012",
    "TemporalPositionIdentifier": "0020|0100",
    "TemporalPositionTimeOffset": "0020|930d",
    "EchoTime": "0018|0081",
    "DiffusionBValue": "0018|9087",
    "DiffusionDirectionality": "0018|9075",
    "DiffusionGradientOrientation": "0018|9089",
    "TriggerTime": "0018|1060",
    "CardiacPhase": "0020|9241",
    "ContrastBolusAgent": "0018|0010",
    "ImageType": "0008|0008",
    "ComplexImageComponent": "0008|9208",
    "ConvolutionKernel": "0018|1210",
    "DimensionIndexValues": "0020|9157",
}
_TAGS = {
    **PART_FIELDS,
    "padding_value": "0028|0120",
    "padding_limit": "0028|0121",
    "modality": "0008|0060",
    "thickness": "0018|0050",
    "tilt": "0018|1120",
    "series_uid": "0020|000e",
    "series_number": "0020|0011",
    "rescale_type": "0028|1054",
    "pet_units": "0054|1001",
    "instance_number": "0020|0013",
    "position": "0020|0032",
    "orientation": "0020|0037",
    "photometric_interpretation": "0028|0004",
    "pixel_spacing": "0028|0030",
    "bits_stored": "0028|0101",
    "pixel_representation": "0028|0103",
    "intercept": "0028|1052",
    "slope": "0028|1053",
}


@dataclass(frozen=True)
class SliceHeader:
    """Header fields of one DICOM slice; absent fields are None unless stated otherwise.

    Attributes:
        path: the file.
        series_uid: SeriesInstanceUID; empty if absent.
        modality: Modality; empty if absent.
        shape: numbers of columns, rows and frames of the file.
        channels: samples per pixel.
        position: ImagePositionPatient, LPS mm.
        orientation: ImageOrientationPatient, the direction of a row, then of a column.
        pixel_spacing: PixelSpacing in mm, between rows, then between columns.
        thickness: SliceThickness in mm.
        tilt: GantryDetectorTilt in degrees, as stated by the scanner.
        rescale: RescaleSlope and RescaleIntercept, each None if absent.
        inverted_sum: for MONOCHROME1, the sum of a stored value and its inversion by GDCM; otherwise None.
        padding: PixelPaddingValue and PixelPaddingRangeLimit as stored, lower one first; None if absent.
        part_fields: texts of :data:`PART_FIELDS`, by name; they may identify a person.
        frame: index of the frame in the file, from 0; None for a file that is one slice.
        units: RescaleType, or Units of PET; empty if absent. It may be any text.
        series_number: SeriesNumber.
        instance_number: InstanceNumber; None also for a text that is no whole number.
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
    padding: tuple[float, float] | None = None
    part_fields: Mapping[str, str] = field(default_factory=dict)
    frame: int | None = None
    units: str = ""
    series_number: int | None = None
    instance_number: int | None = None

    @property
    def is_localizer(self) -> bool:
        """Whether ImageType says that the image is a localizer (scout)."""
        return "LOCALIZER" in self.part_fields.get("ImageType", "").upper()


def read_slice_headers(paths: Sequence[Path], decoding: DicomDecoding) -> list[SliceHeader | str | None]:
    """Read the headers of files.

    Args:
        paths: any files.
        decoding: where and within what limits the files are decoded.

    Returns:
        for each file the header of a DICOM image, the kind of a DICOM object that is no image (:func:`non_image_kind`),
        or None for any other file.

    Raises:
        UnreadableVolumeError: if a file should be a DICOM image, judging by its magic number or name, but cannot be
            read as one, if a numeric field of its header is not a number, or if a file ends the decoder.
    """
    magic = {path: is_dicom(path) for path in paths}
    kinds = {path: kind for path in paths if magic[path] and (kind := non_image_kind(path)) is not None}
    # such as "._I0001.dcm", which macOS writes beside each file
    hidden = {path for path in paths if path.name.startswith(".") and not magic[path]}
    candidates = [path for path in paths if path not in hidden and path not in kinds]
    found = dict(zip(candidates, decode_headers(candidates, list(_TAGS.values()), decoding), strict=True))
    headers = {path: _slice_header(path, magic[path], one) for path, one in found.items()}
    return [headers.get(path, kinds.get(path)) for path in paths]


def _slice_header(path: Path, magic: bool, found: Mapping[str, Any]) -> SliceHeader | None:
    """Interpret what the decoder found in a file."""
    if found["image"]:
        return _parse_header(path, found)
    # Exported files are often named by number or UID: an empty file without a real suffix is a failed copy of an image.
    unnamed = path.stat().st_size == 0 and (not path.suffix or path.suffix[1:].isdigit())
    cause = found["error"]
    if cause is None and not (magic or unnamed or path.suffix.lower() in _DICOM_SUFFIXES):
        return None
    raise UnreadableVolumeError(
        f"{path.name} should be a DICOM image but {_why_unreadable(path)}. Copy the series again, or move the file out "
        "of the folder if it is not an image."
    ) from (None if cause is None else RuntimeError(cause))


def _why_unreadable(path: Path) -> str:
    """Return what is wrong with a file of which the decoder gives no header."""
    if not path.stat().st_size:
        return "is empty (0 bytes)"
    try:
        stored = read_stored_pixels(path)
    except ElementError as error:
        return f"is cut short or damaged: {error}"
    if stored.length is None:
        return "holds no pixels"
    if stored.element != "PixelData":
        return f"its pixels are {stored.element}, which is not supported"
    return "the decoder refuses its header, for a reason that it does not tell"


def _parse_header(path: Path, found: Mapping[str, Any]) -> SliceHeader:
    def text(name: str) -> str:
        return found["tags"].get(_TAGS[name], "").strip(" \0")

    def numbers(name: str, count: int) -> tuple[float, ...] | None:
        if not text(name):
            return None
        tag = _TAGS[name].replace("|", ",")
        try:
            values = tuple(float(i) for i in text(name).split("\\"))
        except ValueError as error:
            raise UnreadableVolumeError(f"{path.name}: DICOM tag ({tag}) is not a number") from error
        if len(values) != count or not all(math.isfinite(i) for i in values):
            raise UnreadableVolumeError(
                f"{path.name}: DICOM tag ({tag}) must contain {count} finite numbers, found {values}"
            )
        return values

    def number(name: str) -> float | None:
        values = numbers(name, 1)
        return None if values is None else values[0]

    signed = number("pixel_representation") == 1
    stated = [number("padding_value"), number("padding_limit")]
    padding = [_stored_word(value, signed) for value in stated if value is not None]
    sizes = [*found["sizes"], 1]
    series_number = text("series_number")
    bits = int(number("bits_stored") or 0)
    return SliceHeader(
        path=path,
        series_uid=text("series_uid"),
        modality=text("modality"),
        shape=(sizes[0], sizes[1], sizes[2]),
        channels=found["components"],
        position=numbers("position", 3),
        orientation=numbers("orientation", 6),
        pixel_spacing=numbers("pixel_spacing", 2),
        thickness=number("thickness"),
        tilt=number("tilt"),
        rescale=(number("slope"), number("intercept")),
        inverted_sum=(-1 if signed else 2**bits - 1) if text("photometric_interpretation") == "MONOCHROME1" else None,
        padding=(min(padding), max(padding)) if padding else None,
        part_fields={name: text(name) for name in PART_FIELDS},
        units=text("pet_units") or text("rescale_type"),
        series_number=int(series_number) if series_number.isdecimal() and len(series_number) < 13 else None,
        instance_number=whole_number(text("instance_number")),
    )


def _stored_word(value: float, signed: bool) -> float:
    """A padding value in the sign of the pixels; files state it as unsigned or signed, whatever the pixels are."""
    if signed and 2**15 <= value < 2**16:
        return value - 2**16
    return value + 2**16 if not signed and -(2**15) <= value < 0 else value
