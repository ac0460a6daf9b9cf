# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Pixels decode to the values that DICOM defines, or are refused by name."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from monai_medpruner.data import VolumeReader
from monai_medpruner.data.dicom_elements import ElementError, read_stored_pixels
from monai_medpruner.errors import UnreadableVolumeError, VolumeShapeError

pydicom = pytest.importorskip("pydicom")
from dicom_files import bit_layout_file, write_slice  # noqa: E402

BITS = (1, 2, 7, 8, 10, 11, 12, 13, 15, 16, 24, 31, 32, 64)


def read(path):
    return VolumeReader().read(path).voxels[..., 0].T


def layouts(allocated):
    for stored in (i for i in BITS if i <= allocated):
        highs = sorted({stored - 1, stored, allocated - 1})
        yield from ((stored, high) for high in highs if stored - 1 <= high < allocated)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("allocated", [1, 8, 16, 24, 32, 64])
def test_every_bit_layout_decodes_to_its_value_or_is_refused(tmp_path, allocated, signed, photometric):
    decoded = []
    for stored, high in layouts(allocated):
        path = tmp_path / f"{stored}_{high}.dcm"
        expected = bit_layout_file(path, allocated, stored, high, signed, photometric, seed=stored)
        try:
            values = read(path)
        except UnreadableVolumeError as error:
            assert str(error).startswith(path.name)  # noqa: PT017
            continue
        assert np.array_equal(values, expected.astype(np.float32)), (stored, high)
        if pydicom.__version__ >= "3":
            assert np.array_equal(values, pydicom.dcmread(path).pixel_array.astype(np.float32)), (stored, high)
        decoded.append((stored, high))
    supported = {8: [8], 16: [1, 2, 7, 8, 10, 11, 12, 13, 15, 16], 32: [32]}.get(allocated, [])
    if photometric == "MONOCHROME1":
        refused = 12 if signed and allocated == 16 else 32
        supported = [i for i in supported if i != refused]
    assert decoded == [(i, i - 1) for i in supported]


@pytest.mark.parametrize("syntax", ["ImplicitVR", "ExplicitVR", "DeflatedExplicitVR"])
def test_uncompressed_syntaxes(tmp_path, syntax):
    uid = getattr(pydicom.uid, f"{syntax}LittleEndian")
    write_slice(tmp_path / "a.dcm", lambda d: setattr(d.file_meta, "TransferSyntaxUID", uid))
    assert np.array_equal(read(tmp_path / "a.dcm").ravel(), np.arange(0, 96, 2))
    stored = read_stored_pixels(tmp_path / "a.dcm")
    assert (stored.syntax, stored.length, stored.rows, stored.columns) == (uid, 96, 6, 8)


def with_pixels(content):
    def edit(dataset):
        dataset.PixelData = content
        dataset["PixelData"].VR = "OW"

    return edit


@pytest.mark.parametrize("length", [0, 2, 48, 94])
def test_too_few_bytes_of_pixels_are_refused(tmp_path, length):
    write_slice(tmp_path / "a.dcm", with_pixels(bytes(length)))
    with pytest.raises(UnreadableVolumeError, match=r"a\.dcm"):
        read(tmp_path / "a.dcm")


def test_half_of_the_pixels_of_one_slice(tmp_path, write_series):
    """Foreign memory was returned: case 03."""

    def edit(dataset, index):
        if index == 4:
            dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]

    series = write_series(tmp_path / "s", edit)
    expected = f"^{series.files[4].name}: it holds 192 bytes of pixels, but its header asks for 384"
    with pytest.raises(UnreadableVolumeError, match=expected):
        VolumeReader().read(tmp_path / "s")


def test_more_bytes_than_needed_are_fine(tmp_path):
    write_slice(tmp_path / "a.dcm", with_pixels(np.arange(0, 96, 2, dtype=np.uint16).tobytes() + bytes(10)))
    assert np.array_equal(read(tmp_path / "a.dcm").ravel(), np.arange(0, 96, 2))


def test_pixels_after_nested_sequences_of_undefined_length(tmp_path):
    def edit(dataset):
        item = pydicom.Dataset()
        item.PixelData, item.Rows, item.BitsAllocated = bytes(2), 1, 16
        item["PixelData"].VR = "OW"
        outer = pydicom.Dataset()
        outer.IconImageSequence = [item, item]
        outer["IconImageSequence"].is_undefined_length = True
        outer.is_undefined_length_sequence_item = True
        dataset.ReferencedImageSequence = [outer]
        dataset["ReferencedImageSequence"].is_undefined_length = True

    write_slice(tmp_path / "a.dcm", edit)
    assert (read_stored_pixels(tmp_path / "a.dcm").length, read_stored_pixels(tmp_path / "a.dcm").rows) == (96, 6)
    assert np.array_equal(read(tmp_path / "a.dcm").ravel(), np.arange(0, 96, 2))


@pytest.mark.parametrize(
    ("keyword", "value", "error", "message"),
    [
        ("PhotometricInterpretation", "YBR_FULL", VolumeShapeError, "in color"),
        ("PhotometricInterpretation", "RGB", VolumeShapeError, "in color"),
        ("PhotometricInterpretation", "HSV", VolumeShapeError, "in color"),
        ("PhotometricInterpretation", "XYZ", UnreadableVolumeError, "XYZ|cannot be decoded"),
        ("PixelRepresentation", 2, UnreadableVolumeError, "PixelRepresentation|cannot be decoded"),
        ("SamplesPerPixel", 3, (UnreadableVolumeError, VolumeShapeError), ""),
    ],
)
def test_other_kinds_of_pixels_are_refused(tmp_path, keyword, value, error, message):
    write_slice(tmp_path / "a.dcm", lambda d: setattr(d, keyword, value))
    with pytest.raises(error, match=message):
        read(tmp_path / "a.dcm")


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
def test_color_is_refused(tmp_path, planar, photometric):
    def edit(dataset):
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, planar
        dataset.PhotometricInterpretation = photometric
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = bytes(6 * 8 * 3)

    write_slice(tmp_path / "a.dcm", edit)
    with pytest.raises((VolumeShapeError, UnreadableVolumeError), match=r"color|should be a DICOM image"):
        read(tmp_path / "a.dcm")


def test_a_field_that_occurs_twice_is_refused(tmp_path):
    write_slice(tmp_path / "a.dcm")
    content = (tmp_path / "a.dcm").read_bytes()
    rows = struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 6)
    place = content.index(rows)
    (tmp_path / "a.dcm").write_bytes(content[:place] + rows + content[place:])
    assert read_stored_pixels(tmp_path / "a.dcm").repeated
    with pytest.raises(UnreadableVolumeError, match=r"a\.dcm"):
        read(tmp_path / "a.dcm")


def test_sequences_that_never_end(tmp_path):
    write_slice(tmp_path / "a.dcm")
    content = (tmp_path / "a.dcm").read_bytes()
    place = content.index(struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 6))
    sequence = struct.pack("<HH2sHI", 0x08, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    (tmp_path / "a.dcm").write_bytes(content[:place] + (sequence + item) * 5000)
    with pytest.raises(ElementError, match="nested too deeply"):
        read_stored_pixels(tmp_path / "a.dcm")


def test_stored_pixels_equal_pydicom_on_its_own_files():
    folder = pydicom.data.get_testdata_file("CT_small.dcm")
    compared = 0
    for path in sorted(Path(folder).parent.glob("*.dcm")):
        try:
            dataset = pydicom.dcmread(path)
            found = read_stored_pixels(path)
        except (ElementError, pydicom.errors.InvalidDicomError):
            continue
        pixels = dataset.get("PixelData")
        assert (found.rows, found.columns) == (dataset.get("Rows"), dataset.get("Columns")), path.name
        assert found.bits_stored == dataset.get("BitsStored"), path.name
        if found.length is not None and found.length >= 0 and found.element == "PixelData":
            assert found.length == len(pixels), path.name
        compared += 1
    assert compared > 60
