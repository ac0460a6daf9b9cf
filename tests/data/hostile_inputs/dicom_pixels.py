# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""DICOM files whose pixels are stored in rare ways, or are not what the header says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from hostile_inputs.case import Case, Registry, body, noted, refused, right
from hostile_inputs.dicom_base import Edit, case, write_slices
from monai_medpruner.errors import UnreadableVolumeError, VolumeShapeError

__all__ = ["INPUTS"]

registry = Registry("DICOM")
INPUTS = registry.inputs
ODD = 4  # the slice that differs from its neighbors


def fifth(change: Edit) -> Edit:
    """Return an edit of one slice alone."""

    def edit(dataset: Dataset, index: int) -> None:
        if index == ODD:
            change(dataset, index)

    return edit


def fields(**values: object) -> Edit:
    """Return an edit that sets fields."""

    def edit(dataset: Dataset, _: int) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return edit


def syntax(uid: str) -> Edit:
    """Return an edit that sets the transfer syntax."""
    return lambda dataset, _: setattr(dataset.file_meta, "TransferSyntaxUID", uid)


@registry.add("a plain CT series, the control", right())
def dicom_plain(folder: Path) -> Case:
    write_slices(folder)
    return case(folder)


@registry.add("one slice is PALETTE COLOR without color tables", refused(UnreadableVolumeError, "PALETTE COLOR"))
def dicom_palette_without_tables(folder: Path) -> Case:
    write_slices(folder, fifth(fields(PhotometricInterpretation="PALETTE COLOR")))
    return Case(folder)


@registry.add("one slice holds half of its pixels", refused(UnreadableVolumeError, "bytes of pixels, but its header"))
def dicom_short_pixels(folder: Path) -> Case:
    def halve(dataset: Dataset, _: int) -> None:
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]

    write_slices(folder, fifth(halve))
    return Case(folder)


@registry.add(
    "a slice holds no pixels", refused(UnreadableVolumeError, "I0004.dcm should be a DICOM image but holds no pixels")
)
def dicom_no_pixels(folder: Path) -> Case:
    def remove(dataset: Dataset, _: int) -> None:
        del dataset.PixelData

    write_slices(folder, fifth(remove))
    return Case(folder)


@registry.add("more bytes of pixels than needed", right())
def dicom_long_pixels(folder: Path) -> Case:
    def extend(dataset: Dataset, _: int) -> None:
        dataset.PixelData += bytes(10)

    write_slices(folder, extend)
    return case(folder)


@registry.add(
    "one slice was cut short in a transfer", refused(UnreadableVolumeError, "the file ends within an element")
)
def dicom_truncated(folder: Path) -> Case:
    file = write_slices(folder)[ODD]
    file.write_bytes(file.read_bytes()[:-150])
    return Case(folder)


@registry.add(
    "one slice is an empty file", refused(UnreadableVolumeError, "I0004.dcm should be a DICOM image but is empty")
)
def dicom_empty_file(folder: Path) -> Case:
    write_slices(folder)[ODD].write_bytes(b"")
    return Case(folder)


@registry.add("12 of 16 bits, other data in the unused ones", right())
def dicom_unused_bits(folder: Path) -> Case:
    def edit(dataset: Dataset, _: int) -> None:
        stored = np.frombuffer(dataset.PixelData, np.uint16) & 0x0FFF
        dataset.PixelData = (stored | 0xA000).astype(np.uint16).tobytes()
        dataset.BitsStored, dataset.HighBit = 12, 11

    write_slices(folder, edit)
    return case(folder)


@registry.add("12 of 16 bits, in the upper ones (high bit 15)", refused(UnreadableVolumeError, "high bit 15"))
def dicom_upper_bits(folder: Path) -> Case:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.PixelData = (np.frombuffer(dataset.PixelData, np.uint16) << 4).astype(np.uint16).tobytes()
        dataset.BitsStored, dataset.HighBit = 12, 15

    write_slices(folder, edit)
    return case(folder)


@registry.add("12 bits with sign", right())
def dicom_signed_12_bits(folder: Path) -> Case:
    write_slices(folder, fields(BitsStored=12, HighBit=11), dtype="int16", rescale=(1, 0))
    return case(folder)


@registry.add("32 bits", right())
def dicom_32_bits(folder: Path) -> Case:
    write_slices(folder, dtype="uint32")
    return case(folder)


@registry.add("24 of 32 bits", refused(UnreadableVolumeError, "24 bits stored in 32"))
def dicom_24_bits(folder: Path) -> Case:
    write_slices(folder, fields(BitsStored=24, HighBit=23), dtype="uint32")
    return case(folder)


@registry.add("floating-point pixels", refused(UnreadableVolumeError, "its pixels are FloatPixelData"))
def dicom_float_pixels(folder: Path) -> Case:
    def edit(dataset: Dataset, _: int) -> None:
        stored = np.frombuffer(dataset.PixelData, np.uint16).astype(np.float32)
        del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
        dataset.FloatPixelData, dataset.BitsAllocated = stored.tobytes(), 32

    write_slices(folder, edit)
    return case(folder)


@registry.add("MONOCHROME1: white is the lowest value", noted("MONOCHROME1"))
def dicom_monochrome1(folder: Path) -> Case:
    write_slices(folder, fields(PhotometricInterpretation="MONOCHROME1"))
    return case(folder)


@registry.add("MONOCHROME1 in one slice alone", noted("MONOCHROME1"))
def dicom_one_monochrome1(folder: Path) -> Case:
    write_slices(folder, fifth(fields(PhotometricInterpretation="MONOCHROME1")))
    return case(folder)


@registry.add("color", refused(VolumeShapeError, "in color"))
def dicom_color(folder: Path) -> Case:
    colors = np.random.default_rng(0).integers(0, 256, (8, 12, 16, 3)).astype(np.uint8)

    def edit(dataset: Dataset, index: int) -> None:
        dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.PlanarConfiguration = "RGB", 3, 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = colors[index].tobytes()
        del dataset.RescaleSlope, dataset.RescaleIntercept

    write_slices(folder, edit)
    return case(folder, colors.transpose(2, 1, 0, 3))


@registry.add("an unknown photometric interpretation", refused(UnreadableVolumeError, "stored as XYZ"))
def dicom_unknown_photometric(folder: Path) -> Case:
    write_slices(folder, fields(PhotometricInterpretation="XYZ"))
    return Case(folder)


@registry.add("rows and columns of a slice stated twice", refused(UnreadableVolumeError, "twice"))
def dicom_repeated_rows(folder: Path) -> Case:
    for file in write_slices(folder):
        content = file.read_bytes()
        start = content.index(b"\x28\x00\x10\x00US")
        file.write_bytes(content[: start + 10] + content[start : start + 8] + b"\x08\x00" + content[start + 10 :])
    return Case(folder)


@registry.add(
    "65,535 x 65,535 pixels are declared", refused(UnreadableVolumeError, "bytes of pixels, but its header asks for")
)
def dicom_huge(folder: Path) -> Case:
    write_slices(folder, fields(Rows=65535, Columns=65535))
    return Case(folder)


@registry.add("stored values are converted by a table (modality LUT)", refused(UnreadableVolumeError, "table"))
def dicom_modality_table(folder: Path) -> Case:
    def edit(dataset: Dataset, _: int) -> None:
        table = Dataset()
        table.add_new("LUTDescriptor", "US", [4096, 0, 16])
        table.add_new("LUTData", "OW", np.arange(4096, dtype=np.uint16)[::-1].tobytes())
        table.ModalityLUTType = "HU"
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.ModalityLUTSequence = [table]

    write_slices(folder, edit)
    return case(folder, 4095 - (body() + 1024))


@registry.add("an icon image before the pixels", right())
def dicom_icon(folder: Path) -> Case:
    def edit(dataset: Dataset, _: int) -> None:
        icon = Dataset()
        icon.Rows, icon.Columns, icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, 2, 1, "MONOCHROME2"
        icon.BitsAllocated, icon.BitsStored, icon.HighBit, icon.PixelRepresentation = 8, 8, 7, 0
        icon.PixelData = bytes(2)
        icon["PixelData"].VR = "OB"
        dataset.IconImageSequence = [icon]

    write_slices(folder, edit)
    return case(folder)


@registry.add("implicit value representations", right())
def dicom_implicit(folder: Path) -> Case:
    write_slices(folder, syntax(pydicom.uid.ImplicitVRLittleEndian))
    return case(folder)


@registry.add("deflated", right())
def dicom_deflated(folder: Path) -> Case:
    write_slices(folder, syntax(pydicom.uid.DeflatedExplicitVRLittleEndian))
    return case(folder)


@registry.add("run-length compression", right())
def dicom_rle(folder: Path) -> Case:
    write_slices(folder, lambda dataset, _: dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False))
    return case(folder)


@registry.add("RLE by its header, plain by its content and length", right(), other_oracle="refuses it")
def dicom_wrong_syntax(folder: Path) -> Case:
    file = write_slices(folder)[ODD]
    uid = b"1.2.840.10008.1.2.1\0"
    file.write_bytes(file.read_bytes().replace(uid, b"1.2.840.10008.1.2.5\0", 1))
    return case(folder)


@registry.add("`PixelRepresentation` is 2", refused(UnreadableVolumeError, "PixelRepresentation is 2"))
def dicom_representation(folder: Path) -> Case:
    write_slices(folder, fifth(fields(PixelRepresentation=2)))
    return Case(folder)
