# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A label map as a DICOM segmentation of the series that it belongs to; needs the package highdicom."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from monai_medpruner import __version__
from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.data.dicom_series import slice_sources
from monai_medpruner.errors import PackageVersionError, UnreadableVolumeError, VolumeShapeError
from monai_medpruner.report.keep_map import KEEP_LABELS

__all__ = ["write_dicom_seg"]

_MANUFACTURER = "monai_medpruner"
#: what a segmentation must state of its source; without them it belongs to no series
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
#: of the patient and the study, which a segmentation states as its source does, and which may be empty
_COPIED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
_SCHEME = "99MEDPRUNER"  # the prefix 99 marks codes that are no standard's


def write_dicom_seg(
    labels: np.ndarray, image: Path, path: Path, series_uid: str | None = None, series_part: int | None = None
) -> None:
    """Write a label map as a binary DICOM segmentation, a segment for each of :data:`~.keep_map.KEEP_LABELS`.

    Each frame bears the position of the source slice that it lies on: exact under uneven gaps and gantry tilt. Patient
    and study are those of the source, as DICOM requires: the file identifies the patient as the series does.

    Args:
        labels: uint8 ``(columns, rows, slices)``, on the grid of the series as it was read.
        image: file or folder of the series.
        path: file to write.
        series_uid: SeriesInstanceUID that was read of a folder with several series.
        series_part: volume that was read of a series with several.

    Raises:
        PackageVersionError: highdicom is not installed.
        VolumeReadError: the series cannot be read any more.
        VolumeShapeError: the series is of another size than the label map.
        UnreadableVolumeError: the series lacks what a segmentation must state, such as a frame of reference.
        OutputFolderError: the file cannot be written.
    """
    try:
        import highdicom
    except ImportError as error:
        raise PackageVersionError(
            'a DICOM segmentation needs the package highdicom: pip install "monai-medpruner[seg]"'
        ) from error
    sources = slice_sources(image, series_uid, series_part=series_part)
    if len(sources) != labels.shape[2]:
        raise VolumeShapeError(f"the series has {len(sources)} slices, the study {labels.shape[2]}: it was changed")
    headers = _headers(sources)
    frames = _frames(labels, sources, headers)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote the patient's name
            segmentation = _segmentation(highdicom, list(headers.values()), frames)
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        # the text may hold a field of the header
        raise UnreadableVolumeError(f"highdicom refuses the series: {type(error).__name__}") from error
    stream = io.BytesIO()
    segmentation.save_as(stream)
    atomic_write(path, stream.getvalue())


def _segmentation(highdicom: Any, headers: list[Any], frames: np.ndarray) -> Any:
    return highdicom.seg.Segmentation(
        source_images=headers,
        pixel_array=frames,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=_segments(highdicom),
        series_instance_uid=highdicom.UID(),
        series_number=9000,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=_MANUFACTURER,
        manufacturer_model_name="medpruner keep-map",
        software_versions=__version__,
        device_serial_number="0",
        series_description="What the model was given",
        content_label="KEEP_MAP",
    )


def _headers(sources: list[tuple[Path, int | None]]) -> dict[Path, Any]:
    """Read the header of each source file, in the order of the slices; highdicom needs no pixels."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    headers = {}
    for file, _ in sources:
        if file not in headers:
            try:
                headers[file] = dcmread(file, stop_before_pixels=True, force=True)
            except (OSError, InvalidDicomError) as error:
                raise UnreadableVolumeError(f"{file.name} cannot be read: {type(error).__name__}") from error
            if lacks := [name for name in _NEEDED if not headers[file].get(name)]:
                raise UnreadableVolumeError(f"{file.name} states no {', '.join(lacks)}, which it must refer to")
            for name in _COPIED:
                if name not in headers[file]:
                    setattr(headers[file], name, "")
    return headers


def _frames(labels: np.ndarray, sources: list[tuple[Path, int | None]], headers: Mapping[Path, Any]) -> np.ndarray:
    """Return the label map as ``(frames, rows, columns)``, in the order of the headers and of the frames in them."""
    slices = labels.transpose(2, 1, 0)
    if all(frame is None for _, frame in sources):
        return np.ascontiguousarray(slices)
    if len(headers) != 1:
        raise VolumeShapeError("a DICOM segmentation is written of one multi-frame object, not of several")
    (header,) = headers.values()
    frames = np.zeros((int(header.NumberOfFrames), *slices.shape[1:]), dtype=np.uint8)
    for one, (_, frame) in zip(slices, sources, strict=True):
        frames[frame] = one
    return frames


def _segments(highdicom: Any) -> list[Any]:
    """Describe the segments; there is no standard code for a visual token."""
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=_MANUFACTURER, version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
            segmented_property_type=highdicom.sr.CodedConcept(name.replace(" ", "_"), _SCHEME, name),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for name, number in KEEP_LABELS.items()
    ]
