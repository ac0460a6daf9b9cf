# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A volume or a file that is too large is refused before it takes memory."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest
from dicom_files import write_slice
from PIL import Image

from monai_medpruner.data import ReadingLimits, VolumeReader
from monai_medpruner.errors import SettingsError, UnreadableVolumeError, VolumeLimitError, VolumeReadError
from monai_medpruner.settings import settings
from monai_medpruner.transforms import LoadVolume, LoadVolumed, describe_transform

MIB = 2**20
SMALL = ReadingLimits(gib=8 / 1024)


def nifti(shape=(4, 5, 6), **header):
    """The bytes of a NIfTI file."""
    image = nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), np.eye(4))
    content = bytearray(image.to_bytes())
    for offset, layout, *values in header.values():
        struct.pack_into(layout, content, offset, *values)
    return bytes(content)


def compressed(path, *parts, zeros=0):
    """Write parts and zeros as gzip, without the zeros in memory at once."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for part in parts:
            file.write(part)
        for _ in range(zeros // MIB):
            file.write(bytes(MIB))
    return path


def refused(path, limits, error=VolumeLimitError, match="."):
    """Read a file that must be refused, and return the peak of memory that was allocated."""
    tracemalloc.start()
    try:
        with pytest.raises(error, match=match):
            VolumeReader(limits=limits).read(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_defaults_are_the_settings():
    assert {f"limit_{name}": value for name, value in vars(ReadingLimits()).items()} == {
        name: settings()[name].default for name in ("limit_voxels", "limit_slices", "limit_gib")
    }


@pytest.mark.parametrize("wrong", [{"voxels": 0}, {"slices": -1}, {"gib": float("inf")}, {"voxels": True}], ids=str)
def test_limits_are_checked(wrong):
    with pytest.raises(SettingsError, match=f"limit_{next(iter(wrong))} must be a positive number"):
        ReadingLimits(**wrong)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("shape", "setting"), [((2000, 2000, 2000), "limit_voxels"), ((2, 2, 6000), "limit_slices"), ((300,) * 4, "voxels")]
)
def test_declared_size_of_a_nifti_file(tmp_path, suffix, shape, setting):
    content = nifti(dim=(40, f"<{len(shape) + 1}h", len(shape), *shape))
    path = tmp_path / f"v{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    assert refused(path, ReadingLimits(), match=setting) < 4 * MIB


def test_what_follows_the_voxels_of_a_compressed_file(tmp_path):
    path = compressed(tmp_path / "v.nii.gz", nifti(), zeros=200 * MIB)
    assert path.stat().st_size < 2 * MIB
    assert refused(path, SMALL, match="limit_gib") < 6 * MIB
    assert VolumeReader(limits=ReadingLimits(gib=1)).read(path).voxels.shape == (4, 5, 6)


@pytest.mark.parametrize("declared", [7, -8, 2**31 - 9, 150 * MIB])
def test_extension_of_the_header(tmp_path, declared):
    """nibabel reads as much of an extension as a file states, and all of the file for a size of 7."""
    extension = b"\1\0\0\0" + struct.pack("<ii", declared, 4)
    content = nifti(vox_offset=(108, "<f", 352.0 + 32))
    path = compressed(tmp_path / "v.nii.gz", content[:348], extension, zeros=200 * MIB)
    assert refused(path, None, UnreadableVolumeError) < 6 * MIB


@pytest.mark.parametrize("place", [-16.0, float("nan"), 3e38])
def test_place_of_the_voxels(tmp_path, place):
    path = compressed(tmp_path / "v.nii.gz", nifti(vox_offset=(108, "<f", place)), zeros=200 * MIB)
    error, phrase = (VolumeLimitError, "limit_gib") if place > 0 else (UnreadableVolumeError, "header is not valid")
    assert refused(path, None, error, phrase) < 6 * MIB


def test_extension_of_an_ordinary_file_is_skipped(tmp_path):
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 100_000))
    nib.save(image, tmp_path / "v.nii.gz")
    voxels = VolumeReader().read(tmp_path / "v.nii.gz").voxels
    assert np.array_equal(voxels, np.asarray(nib.load(tmp_path / "v.nii.gz").dataobj))


def test_npy_file(tmp_path):
    with (tmp_path / "v.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (1, 2000, 2000, 2000)}
        )
        file.truncate(file.tell() + 4 * 2000**3)  # a hole: it takes no disk
    assert refused(tmp_path / "v.npy", None, match="2,?000 x .*limit_voxels") < MIB


def test_images(tmp_path):
    """A PNG of 400 million pixels has a few hundred kilobytes."""
    side = 20_000
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(bytes(side + 1)) for _ in range(side)) + packer.flush()

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
        )
    assert refused(tmp_path, None, VolumeReadError) < 4 * MIB
    for number in range(3):
        Image.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / f"{number}.png")
    refused(tmp_path, ReadingLimits(voxels=40 * 50 * 3 - 1), match="40 x 50 x 3")
    assert VolumeReader(limits=ReadingLimits(voxels=40 * 50 * 3)).read(tmp_path).voxels.shape == (50, 40, 3)


def test_dicom_series(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for index in range(9):
        write_slice(folder / f"{index}.dcm", z=float(index))
    refused(folder, ReadingLimits(voxels=6 * 8 * 9 - 1), match="8 x 6 x 9 voxels.*limit_voxels")
    refused(folder, ReadingLimits(slices=8), match="limit_slices")
    limits = ReadingLimits(voxels=6 * 8 * 9, slices=9)
    assert VolumeReader(limits=limits).read(folder).voxels.shape == (8, 6, 9)


@pytest.mark.parametrize("load", [LoadVolume, lambda **given: LoadVolumed("image", **given)])
def test_limits_are_no_part_of_the_record(load):
    assert describe_transform(load(limits=SMALL)) == describe_transform(load())
    assert "limits" not in describe_transform(load())["arguments"]
