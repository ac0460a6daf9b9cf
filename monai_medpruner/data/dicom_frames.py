# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Frames of multi-frame DICOM objects, by their functional groups: DICOM PS3.3, sections C.7.6.16 and C.8.

Each frame becomes a slice with a header of its own, so that frames are ordered and checked as single-frame files are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace

from monai_medpruner.data.dicom_elements import ElementError, Elements, Wanted, read_elements
from monai_medpruner.data.dicom_header import SliceHeader
from monai_medpruner.errors import UnreadableVolumeError, VolumeShapeError

__all__ = ["expand_frames", "has_frames", "unplaced"]

_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_POSITION, _ORIENTATION, _MEASURES = 0x00209113, 0x00209116, 0x00289110
_TRANSFORMATION, _CONTENT = 0x00289145, 0x00209111
_VOLUME_POSITION, _SLIDE_POSITION = 0x0020930E, 0x0048021A
_DIMENSIONS, _DIMENSION, _DIMENSION_VALUES = 0x00209222, 0x00209165, 0x00209157
_INCREMENT, _SLICE_VECTOR, _DETECTOR = 0x00280009, 0x00540080, 0x00540022
#: dimensions that count the slices of a volume: position in the patient, in the stack, and SliceLocation
_PLACES = (0x00200032, _POSITION, 0x00209057, 0x00201041)
#: increments of a cine loop: frame time, and frame time vector
_TIMES = (0x00181063, 0x00181065)
#: fields that tell apart the volumes of an object: name as in PART_FIELDS, tags down to the value, representation
_PARTS: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("StackID", (_CONTENT, 0x00209056), "text"),
    ("AcquisitionNumber", (_CONTENT, 0x00209156), "H"),
    ("TemporalPositionIdentifier", (_CONTENT, 0x00209128), "I"),
    ("TemporalPositionTimeOffset", (0x00209310, 0x0020930D), "d"),
    ("EchoTime", (0x00189114, 0x00189082), "d"),
    ("DiffusionBValue", (0x00189117, 0x00189087), "d"),
    ("DiffusionDirectionality", (0x00189117, 0x00189075), "text"),
    ("DiffusionGradientOrientation", (0x00189117, 0x00189076, 0x00189089), "d"),
    ("TriggerTime", (0x00189118, 0x00209153), "d"),
    ("CardiacPhase", (0x00189118, 0x00209241), "f"),
    ("ImageType", (0x00189226, 0x00089007), "text"),
    ("ImageType", (0x00189329, 0x00089007), "text"),
    ("ImageType", (0x00189751, 0x00089007), "text"),
    ("ComplexImageComponent", (0x00189226, 0x00089208), "text"),
    ("ConvolutionKernel", (0x00189314, 0x00181210), "text"),
)


def _group() -> Wanted:
    """What is read of a functional group."""
    wanted: dict[int, dict] = {
        _POSITION: {0x00200032: None},
        _ORIENTATION: {0x00200037: None},
        _MEASURES: {0x00280030: None, 0x00180050: None},
        _TRANSFORMATION: {0x00281052: None, 0x00281053: None, 0x00281054: None},
        _CONTENT: {_DIMENSION_VALUES: None},
        _VOLUME_POSITION: {},
        _SLIDE_POSITION: {},
    }
    for _, path, _ in _PARTS:
        place = wanted
        for tag in path[:-1]:
            place = place.setdefault(tag, {})
        place[path[-1]] = None  # type: ignore[assignment]
    return wanted


_WANTED: Wanted = {
    _SHARED: _group(),
    _PER_FRAME: _group(),
    _DIMENSIONS: {_DIMENSION: None},
    _DETECTOR: {},
    **dict.fromkeys((_INCREMENT, _SLICE_VECTOR)),
}


def has_frames(header: SliceHeader) -> bool:
    """Whether a file holds several frames, or states the place of its only one where functional groups do."""
    return header.shape[2] > 1 or None in (header.position, header.orientation, header.pixel_spacing)


def unplaced(header: SliceHeader) -> bool:
    """Whether no frame of a file has a position in the patient; False also where damage hides that.

    Args:
        header: of a file for which :func:`has_frames` holds.
    """
    try:
        order, found = read_elements(header.path, _WANTED)
    except ElementError:
        return False
    return header.position is None and _why_unplaced(header, found, order) is not None


def expand_frames(header: SliceHeader) -> list[SliceHeader]:
    """Return a header for each frame of a file; the header itself for a single image without functional groups.

    Args:
        header: of a file for which :func:`has_frames` holds.

    Raises:
        UnreadableVolumeError: if the file does not state the position of each of its frames in the patient, or its
            functional groups are damaged.
        VolumeShapeError: if the frames are in color.
    """
    name, count = header.path.name, header.shape[2]
    if count > 1 and header.channels != 1:
        raise VolumeShapeError(f"{name} holds {count} frames in color; expected one value per pixel")
    try:
        order, found = read_elements(header.path, _WANTED)
    except ElementError as error:
        raise UnreadableVolumeError(f"{name}: its DICOM elements are damaged: {error}") from error
    groups, shared = _items(found, _PER_FRAME), (_items(found, _SHARED) or [{}])[0]
    if count == 1 and not groups and not shared:
        return [header]
    if (reason := _why_unplaced(header, found, order)) is not None:
        raise UnreadableVolumeError(f"{name} holds {count} {'frame' if count == 1 else 'frames'}, {reason}")
    if len(groups) != count:
        raise UnreadableVolumeError(
            f"{name} holds {count} frames, but functional groups of {len(groups)}: its header is damaged"
        )
    dimensions = _dimensions(found, order)
    frames = [_FrameGroups(header, number, (group, shared), order) for number, group in enumerate(groups)]
    return [frame.header(dimensions) for frame in frames]


def _why_unplaced(header: SliceHeader, found: Elements, order: str) -> str | None:
    """Why no frame of a file has a place in the patient; None if one has."""
    groups = [*_items(found, _PER_FRAME), *_items(found, _SHARED)]
    for macro, place in ((_POSITION, None), (_VOLUME_POSITION, "an ultrasound volume"), (_SLIDE_POSITION, "a slide")):
        if any(_items(group, macro) for group in groups):
            return place and f"placed relative to {place}, not to the patient, which is not supported"
    increments = _unpack(found.get(_INCREMENT), order, "HH")
    if any(group << 16 | element in _TIMES for group, element in increments):
        return "which follow one another in time (a cine loop): they are no slices of a volume"
    if _DETECTOR in found or _SLICE_VECTOR in found:
        return "whose places are those of a nuclear medicine detector, which are not supported. Convert it to NIfTI."
    return (
        "and no position for any of them: they may be no slices of a volume, such as a cine loop or pages of a report"
    )


class _FrameGroups:
    """The functional groups of one frame: its own, then those that all frames share."""

    def __init__(self, header: SliceHeader, number: int, groups: tuple[Elements, Elements], order: str) -> None:
        self._header, self._number, self._groups, self._order = header, number, groups, order

    def header(self, dimensions: Sequence[int]) -> SliceHeader:
        """Return the frame's header; ``dimensions``: places of the dimension indices that tell volumes apart."""
        if self._value((_POSITION, 0x00200032)) is None:
            raise UnreadableVolumeError(
                f"{self._header.path.name}: frame {self._number + 1} of {self._header.shape[2]} has no position in the "
                "patient (ImagePositionPatient), which is needed to place it in the volume"
            )
        thickness = self._numbers(_MEASURES, 0x00180050, 1)
        slope, intercept = (self._numbers(_TRANSFORMATION, tag, 1) for tag in (0x00281053, 0x00281052))
        top_slope, top_intercept = self._header.rescale
        return replace(
            self._header,
            frame=self._number,
            instance_number=None,  # that of the file numbers no frames
            position=self._numbers(_POSITION, 0x00200032, 3),
            orientation=self._numbers(_ORIENTATION, 0x00200037, 6),
            pixel_spacing=self._numbers(_MEASURES, 0x00280030, 2),
            thickness=thickness[0] if thickness else self._header.thickness,
            rescale=(slope[0] if slope else top_slope, intercept[0] if intercept else top_intercept),
            units=self._text((_TRANSFORMATION, 0x00281054)) or self._header.units,
            part_fields={**self._header.part_fields, **dict(self._part_fields(dimensions))},
        )

    def _part_fields(self, dimensions: Sequence[int]) -> Iterator[tuple[str, str]]:
        for name, path, kind in _PARTS:
            if kind == "text":
                text = self._text(path)
            else:
                text = "\\".join(f"{one:g}" for (one,) in _unpack(self._value(path), self._order, kind))
            if text:
                yield name, text
        if dimensions:
            indices = _unpack(self._value((_CONTENT, _DIMENSION_VALUES)), self._order, "I")
            yield "DimensionIndexValues", "\\".join(str(indices[i][0]) for i in dimensions if i < len(indices))

    def _value(self, path: Sequence[int]) -> bytes | None:
        """The bytes of a value within the frame's own or the shared groups."""
        for group in self._groups:
            place: Elements | None = group
            for tag in path[:-1]:
                items = _items(place, tag) if place is not None else []
                place = items[0] if items else None
            value = place.get(path[-1]) if place is not None else None
            if isinstance(value, bytes) and value:
                return value
        return None

    def _text(self, path: Sequence[int]) -> str:
        return (self._value(path) or b"").decode("latin-1").strip(" \0")

    def _numbers(self, macro: int, tag: int, count: int) -> tuple[float, ...] | None:
        text = self._text((macro, tag))
        if not text:
            return None
        try:
            values = tuple(float(one) for one in text.split("\\"))
        except ValueError:
            values = ()
        if len(values) != count or not all(math.isfinite(one) for one in values):
            raise UnreadableVolumeError(
                f"{self._header.path.name}, frame {self._number + 1}: DICOM tag ({tag >> 16:04x},{tag & 0xFFFF:04x}) "
                f"must contain {count} finite numbers"
            )
        return values


def _dimensions(found: Elements, order: str) -> list[int]:
    """Places of the dimension indices that do not count the slices of a volume."""
    places = []
    for place, item in enumerate(_items(found, _DIMENSIONS)):
        value = item.get(_DIMENSION)
        tags = _unpack(value if isinstance(value, bytes) else None, order, "HH")
        if tags and tags[0][0] << 16 | tags[0][1] not in _PLACES:
            places.append(place)
    return places


def _items(elements: Elements, tag: int) -> list[Elements]:
    items = elements.get(tag)
    return items if isinstance(items, list) else []


def _unpack(value: object, order: str, kind: str) -> list[tuple]:
    """Numbers of a binary value; none where its length does not fit."""
    size = struct.calcsize(f"{order}{kind}")
    if not isinstance(value, bytes) or len(value) % size:
        return []
    return list(struct.iter_unpack(f"{order}{kind}", value))
