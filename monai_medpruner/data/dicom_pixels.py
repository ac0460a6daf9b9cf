# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Whether the stored pixels of a DICOM file are what its header says, before they are decoded."""

from __future__ import annotations

from monai_medpruner.data.dicom_elements import ElementError, StoredPixels, read_stored_pixels
from monai_medpruner.data.dicom_header import SliceHeader
from monai_medpruner.errors import UnreadableVolumeError

__all__ = ["check_stored_pixels"]

#: transfer syntaxes without compression of the pixels: implicit, explicit, deflated, big endian, GE's private one
_NATIVE = (
    "",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.113619.5.2",
)
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")


def check_stored_pixels(header: SliceHeader) -> None:
    """Raise unless the decoder reads the stored pixels of a file as DICOM defines them.

    ITK's decoder goes by rows, columns and bits alone: of a pixel element that is too short it returns foreign memory,
    and for some layouts of the bits it returns other values than those stored.

    Args:
        header: header of a file with one frame; in color, nothing is checked.

    Raises:
        UnreadableVolumeError: if the file has fewer bytes of pixels than its header asks for, contradicts itself, or
            stores pixels in a way that the decoder does not support.
    """
    name = header.path.name
    try:
        stored = read_stored_pixels(header.path)
    except ElementError as error:
        raise UnreadableVolumeError(f"{name}: its DICOM elements are damaged: {error}") from error
    if header.channels != 1 and stored.photometric_interpretation not in _MONOCHROME:
        return
    fault = _layout_fault(header, stored) or _length_fault(header, stored)
    if fault is not None:
        raise UnreadableVolumeError(f"{name}: {fault}")


def _layout_fault(header: SliceHeader, stored: StoredPixels) -> str | None:
    if stored.repeated:
        return "its header states size or type of the pixels twice"
    if stored.length is None:
        return "it holds no pixels"
    if stored.modality_lut:
        return "its stored values are converted by a table (ModalityLUTSequence), which is not supported"
    if stored.element != "PixelData":
        return f"its pixels are {stored.element}, which is not supported; convert it to integers"
    if (stored.columns, stored.rows) != header.shape[:2]:
        return f"its header states {stored.columns} x {stored.rows} pixels, the decoder {header.shape[:2]}"
    if stored.photometric_interpretation not in _MONOCHROME:
        found = stored.photometric_interpretation or "no PhotometricInterpretation"
        return f"its pixels are stored as {found}; expected {' or '.join(_MONOCHROME)}"
    allocated = stored.bits_allocated
    bits = allocated if stored.bits_stored is None else stored.bits_stored
    if allocated is None or bits is None:
        return "its header does not state the bits of a pixel"
    high = bits - 1 if stored.high_bit is None else stored.high_bit
    layout = f"{bits} bits stored in {allocated}, high bit {high}"
    if stored.pixel_representation not in (None, 0, 1):
        return f"PixelRepresentation is {stored.pixel_representation}; expected 0 or 1"
    whole = allocated == bits and allocated in (8, 32)
    if not (high == bits - 1 and (whole or (allocated == 16 and 1 <= bits <= 16))):
        return (
            f"its pixels have {layout}, which is not supported; expected 8 in 8, 1 to 16 in 16, or 32 in 32, and a "
            "high bit one less than the bits stored"
        )
    if header.inverted_sum is not None and (allocated == 32 or (stored.pixel_representation == 1 and bits == 12)):
        return f"its pixels are MONOCHROME1 with {layout}, which the decoder does not support"
    return None


def _length_fault(header: SliceHeader, stored: StoredPixels) -> str | None:
    assert stored.length is not None
    assert stored.bits_allocated is not None
    if stored.syntax not in _NATIVE:
        return None if stored.length else "it holds no pixels"
    if stored.length < 0:
        return "its pixels have no length, although they are not compressed"
    samples = 1 if stored.samples is None else stored.samples
    needed = header.shape[0] * header.shape[1] * samples * (stored.frames or 1) * stored.bits_allocated // 8
    if stored.length < needed:
        return (
            f"it holds {stored.length} bytes of pixels, but its header asks for {needed}: the file is incomplete. Copy "
            "the series again."
        )
    return None
