# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Elements of a DICOM file, read without a decoder: DICOM PS3.5, section 7.

ITK's decoder reads as many bytes as rows, columns and bits ask for, also where the file holds fewer, and returns no
values within sequences. This reader walks through the elements of a file up to the pixels, reports their length, and
reads wanted elements at any depth.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

__all__ = ["ElementError", "Elements", "StoredPixels", "Wanted", "read_elements", "read_stored_pixels"]

#: tags to read: of a value, or of a sequence with what is wanted of its items
Wanted: TypeAlias = Mapping[int, "Wanted | None"]
#: what was read: the bytes of a value, or the items of a sequence
Elements: TypeAlias = dict[int, "bytes | list[Elements]"]

_DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_IMPLICIT = "1.2.840.10008.1.2"
#: bytes that a deflated file may take when it is inflated
_MAX_INFLATED = 1 << 28
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_MAX_DEPTH = 64
#: elements that are looked at; an object of 2,000 frames has about 200,000
_MAX_ELEMENTS = 5_000_000
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
#: 16-bit numbers, by the attribute of :class:`StoredPixels`
_NUMBERS = {
    0x00280002: "samples",
    0x00280006: "planar_configuration",
    0x00280010: "rows",
    0x00280011: "columns",
    0x00280100: "bits_allocated",
    0x00280101: "bits_stored",
    0x00280102: "high_bit",
    0x00280103: "pixel_representation",
}
_FRAMES, _PHOTOMETRIC, _MODALITY_LUT = 0x00280008, 0x00280004, 0x00283000


class ElementError(ValueError):
    """The elements of a file do not follow one another as DICOM has it."""


@dataclass
class StoredPixels:
    """Fields that describe the stored pixels; None where a file has no such element.

    Attributes:
        syntax: TransferSyntaxUID; empty if absent.
        length: bytes of the pixels; None without pixels, -1 if undefined, as for compressed pixels.
        element: "PixelData", "FloatPixelData" or "DoubleFloatPixelData".
        modality_lut: whether stored values are converted by a table (ModalityLUTSequence).
        repeated: whether one of these elements occurs more than once.
    """

    syntax: str = ""
    length: int | None = None
    element: str = ""
    samples: int | None = None
    planar_configuration: int | None = None
    rows: int | None = None
    columns: int | None = None
    frames: int | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    high_bit: int | None = None
    pixel_representation: int | None = None
    photometric_interpretation: str | None = None
    modality_lut: bool = False
    repeated: bool = False


def read_stored_pixels(path: Path) -> StoredPixels:
    """Read what a DICOM file says of its stored pixels.

    Raises:
        ElementError: if the elements of the file do not follow one another as DICOM has it.
        OSError: if the file cannot be read.
    """
    found = StoredPixels()
    with _opened(path) as (syntax, elements):
        found.syntax = syntax
        elements.read(found)
    return found


def read_elements(path: Path, wanted: Wanted) -> tuple[str, Elements]:
    """Read some elements of a DICOM file that precede its pixels, those within sequences included.

    Args:
        path: a DICOM file.
        wanted: their tags.

    Returns:
        the byte order of their values, "<" or ">", and the elements that the file has.

    Raises:
        ElementError: if the elements of the file do not follow one another as DICOM has it, or are too many.
        OSError: if the file cannot be read.
    """
    with _opened(path) as (_, elements):
        return elements.order, elements.read_wanted(wanted)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[str, _Elements]]:
    """Yield the transfer syntax of a file, and the walk through its elements after the file meta information."""
    try:
        with path.open("rb") as file:
            file.seek(128)
            start = 132 if file.read(4) == b"DICM" else 0
            size = file.seek(0, io.SEEK_END)
            file.seek(start)
            syntax = _Elements(file, size, "<", implicit=False).read_meta()
            if syntax == _DEFLATED:
                inflated = _inflate(file.read())
                yield syntax, _Elements(io.BytesIO(inflated), len(inflated), "<", implicit=False)
            else:
                order = ">" if syntax == _BIG_ENDIAN else "<"
                implicit = syntax == _IMPLICIT or (not syntax and _looks_implicit(file))
                yield syntax, _Elements(file, size, order, implicit)
    except (struct.error, zlib.error) as error:
        raise ElementError(str(error)) from error


def _looks_implicit(file: BinaryIO) -> bool:
    """Whether the next element states no value representation."""
    place = file.tell()
    head = file.read(6)
    file.seek(place)
    return not head[4:6].isalpha()


def _inflate(content: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = stream.decompress(content, _MAX_INFLATED)
    if stream.unconsumed_tail:
        raise ElementError(f"more than {_MAX_INFLATED >> 20} MiB when inflated")
    return inflated


class _Elements:
    """A walk through the elements of a file."""

    def __init__(self, file: BinaryIO, size: int, order: str, implicit: bool) -> None:
        self._file, self._size, self._implicit = file, size, implicit
        self.order = order
        self._heads = 0
        self._tag = struct.Struct(f"{order}HH")
        self._implicit_head = struct.Struct(f"{order}HHI")
        self._explicit_head = struct.Struct(f"{order}HH2sH")
        self._long = struct.Struct(f"{order}I")

    def read_meta(self) -> str:
        """Read the transfer syntax, empty if absent; stop before the first element of another group than 2."""
        syntax = ""
        while True:
            place = self._file.tell()
            group = self._file.read(2)
            self._file.seek(place)
            if group != b"\x02\x00":
                return syntax
            tag, _, length = self._head(implicit=False)
            if length == _UNDEFINED:
                raise ElementError("an element of undefined length in the file meta information")
            if tag == 0x00020010:
                syntax = self._value(length).decode("ascii", "replace").strip(" \0")
            else:
                self._skip(length)

    def read(self, found: StoredPixels) -> None:
        """Read the elements up to the pixels."""
        seen: set[int] = set()
        while self._file.tell() < self._size:
            tag, vr, length = self._head(self._implicit)
            wanted = tag in _NUMBERS or tag in (_FRAMES, _PHOTOMETRIC)
            if wanted:
                found.repeated |= tag in seen
                seen.add(tag)
            found.modality_lut |= tag == _MODALITY_LUT
            if tag in _PIXELS:
                found.length = -1 if length == _UNDEFINED else length
                found.element = ("FloatPixelData", "DoubleFloatPixelData", "PixelData")[_PIXELS.index(tag)]
                if length != _UNDEFINED:
                    self._skip(length)
                return
            if length == _UNDEFINED:
                self._skip_sequence(self._implicit or vr == b"UN", 0)
            elif wanted:
                self._keep(found, tag, self._value(length))
            else:
                self._skip(length)

    def read_wanted(self, wanted: Wanted) -> Elements:
        """Read the wanted elements before the pixels; elements are in the order of their tags."""
        return self._read_item(wanted, self._implicit, self._size, 0)

    def _read_item(self, wanted: Wanted, implicit: bool, end: int, depth: int) -> Elements:
        """Read the wanted elements up to ``end``, the end of the item, or the pixels."""
        found: Elements = {}
        while self._file.tell() < end:
            tag, vr, length = self._head(implicit)
            if tag == _ITEM_END or tag in _PIXELS or (depth == 0 and tag > max(wanted)):
                return found
            items = wanted.get(tag)
            if items is not None:
                found[tag] = self._read_sequence(items, implicit or vr == b"UN", length, depth)
            elif length == _UNDEFINED:
                self._skip_sequence(implicit or vr == b"UN", depth)
            elif tag in wanted:
                found[tag] = self._value(length)
            else:
                self._skip(length)
        return found

    def _read_sequence(self, wanted: Wanted, implicit: bool, length: int, depth: int) -> list[Elements]:
        if depth > _MAX_DEPTH:
            raise ElementError("sequences are nested too deeply")
        end = self._size if length == _UNDEFINED else self._file.tell() + length
        items: list[Elements] = []
        while self._file.tell() < end:
            tag, _, own = self._head(implicit=True)
            if tag == _SEQUENCE_END and length == _UNDEFINED:
                return items
            if tag != _ITEM:
                raise ElementError("a sequence holds something that is no item")
            own_end = end if own == _UNDEFINED else self._file.tell() + own
            if own_end > end:
                raise ElementError("an item reaches beyond its sequence")
            items.append(self._read_item(wanted, implicit, own_end, depth + 1))
            if own != _UNDEFINED and self._file.tell() != own_end:
                raise ElementError("an item does not end where it says")
        return items

    def _keep(self, found: StoredPixels, tag: int, value: bytes) -> None:
        if tag in _NUMBERS:
            if len(value) >= 2:
                setattr(found, _NUMBERS[tag], struct.unpack(f"{self.order}H", value[:2])[0])
            return
        text = value.decode("ascii", "replace").strip(" \0")
        if tag == _PHOTOMETRIC:
            found.photometric_interpretation = text
        elif text:
            try:
                found.frames = int(text.split("\\")[0])
            except ValueError as error:
                raise ElementError("NumberOfFrames is not a number") from error

    def _head(self, implicit: bool) -> tuple[int, bytes, int]:
        """Read tag, value representation and length of the next element."""
        self._heads += 1
        if self._heads > _MAX_ELEMENTS:
            raise ElementError(f"more than {_MAX_ELEMENTS} elements")
        head = self._file.read(8)
        group, element = self._tag.unpack_from(head)
        tag = group << 16 | element
        if implicit or group == 0xFFFE:
            return tag, b"", self._implicit_head.unpack(head)[2]
        _, _, vr, length = self._explicit_head.unpack(head)
        if vr in _LONG:
            return tag, vr, self._long.unpack(self._file.read(4))[0]
        if not (vr.isalpha() and vr.isupper()):
            raise ElementError("an element states no value representation")
        return tag, vr, length

    def _value(self, length: int) -> bytes:
        if length > 1 << 16:
            raise ElementError("an element is longer than its kind allows")
        value = self._file.read(length)
        if len(value) < length:
            raise ElementError("the file ends within an element")
        return value

    def _skip(self, length: int) -> None:
        if self._file.tell() + length > self._size:
            raise ElementError("the file ends within an element")
        self._file.seek(length, io.SEEK_CUR)

    def _skip_sequence(self, implicit: bool, depth: int) -> None:
        """Skip the items of a sequence of undefined length, of which the head was read."""
        if depth > _MAX_DEPTH:
            raise ElementError("sequences are nested too deeply")
        while True:
            tag, _, length = self._head(implicit=True)
            if tag == _SEQUENCE_END:
                return
            if tag != _ITEM:
                raise ElementError("a sequence holds something that is no item")
            if length == _UNDEFINED:
                self._skip_item(implicit, depth)
            else:
                self._skip(length)

    def _skip_item(self, implicit: bool, depth: int) -> None:
        while True:
            tag, vr, length = self._head(implicit)
            if tag == _ITEM_END:
                return
            if length == _UNDEFINED:
                self._skip_sequence(implicit or vr == b"UN", depth + 1)
            else:
                self._skip(length)
