# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""NIfTI files: the container, the compression, the kinds of voxels."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from hostile_inputs.case import Case, Registry, body, noted, refused, right
from hostile_inputs.nifti_base import AFFINE, case, compress, image, patch, write
from monai_medpruner.errors import (
    IntensityUnitsError,
    NonFiniteVoxelsError,
    TooFewSlicesError,
    UnreadableVolumeError,
    VolumeShapeError,
    ZeroVarianceError,
)

__all__ = ["INPUTS"]

registry = Registry("NIfTI", modality="ct")
INPUTS = registry.inputs


@registry.add("a plain CT, the control", right())
def nifti_plain(folder: Path) -> Case:
    return case(write(folder, image()))


@registry.add("gzip, slices along the first axis, mirrored, oblique", right())
def nifti_oblique_permuted(folder: Path) -> Case:
    affine = np.array([[0.2, 0.77, -0.1, 5.0], [-0.1, 0.1, 0.79, -9.0], [4.9, -0.2, 0.05, 7.0], [0, 0, 0, 1]])
    first, second, third = affine[:3, :3].T
    second -= first * (first @ second) / (first @ first)
    third -= first * (first @ third) / (first @ first) + second * (second @ third) / (second @ second)
    affine[:3, :3] = np.stack([first, second, third], axis=1)
    return case(write(folder, image(body((8, 12, 16)), affine), "v.nii.gz"), body((8, 12, 16)), affine)


@registry.add("NIfTI-2", right())
def nifti_2(folder: Path) -> Case:
    return case(write(folder, image(kind=nib.Nifti2Image)))


@registry.add("big-endian", right())
def nifti_big_endian(folder: Path) -> Case:
    made = nib.Nifti1Image(body(), None, nib.Nifti1Header(endianness=">"))
    made.set_sform(AFFINE, 1)
    made.header.set_zooms((0.8, 0.8, 5.0))
    return case(write(folder, made))


@registry.add("the file ends halfway through its voxels", refused(UnreadableVolumeError, "is cut short"))
def nifti_truncated(folder: Path) -> Case:
    path = write(folder, image())
    path.write_bytes(path.read_bytes()[: 352 + body().nbytes // 2])
    return Case(path)


@registry.add("gzip that ends early", refused(UnreadableVolumeError, "cut short or damaged"))
def nifti_gzip_truncated(folder: Path) -> Case:
    path = write(folder, image(), "v.nii.gz")
    path.write_bytes(path.read_bytes()[:-100])
    return Case(path)


@registry.add(
    "3 kB of gzip that declare 340 MB of voxels", refused(UnreadableVolumeError, "its header asks for 360000352")
)
def nifti_gzip_declares_more(folder: Path) -> Case:
    return Case(compress(patch(write(folder, image()), 42, "<3h", 600, 600, 500)))


@registry.add("gzip with a wrong checksum", refused(UnreadableVolumeError, "cut short or damaged"))
def nifti_gzip_checksum(folder: Path) -> Case:
    content = write(folder, image()).read_bytes()
    path = folder / "v.nii.gz"
    path.write_bytes(gzip.compress(content, compresslevel=0))  # stored, so that only the checksum tells
    return Case(patch(path, 1000, "<h", 12345))


@registry.add("gzip with other bytes after its end", noted("something else follows the gzip data"))
def nifti_gzip_trailing_garbage(folder: Path) -> Case:
    path = write(folder, image(), "v.nii.gz")
    path.write_bytes(path.read_bytes() + b"more of something else")
    return case(path)


@registry.add("gzip in two members, as parallel compressors write it", right())
def nifti_gzip_members(folder: Path) -> Case:
    content = write(folder, image()).read_bytes()
    (folder / "v.nii").unlink()
    (folder / "v.nii.gz").write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
    return case(folder / "v.nii.gz")


@registry.add("bytes after the voxels: the header declares fewer slices", noted("384 bytes follow the voxels"))
def nifti_bytes_left(folder: Path) -> Case:
    path = write(folder, image())
    return case(patch(path, 46, "<h", 7), body()[..., :7])


@registry.add("zeros after the end of gzip, as tapes and some disks leave them", right())
def nifti_gzip_padded(folder: Path) -> Case:
    path = write(folder, image(), "v.nii.gz")
    path.write_bytes(path.read_bytes() + bytes(512))
    return case(path)


@registry.add("an empty file", refused(UnreadableVolumeError, "is empty"))
def nifti_empty(folder: Path) -> Case:
    (folder / "v.nii.gz").write_bytes(b"")
    return Case(folder / "v.nii.gz")


@registry.add("gzip under the name `.nii`", refused(UnreadableVolumeError, "rename it to .nii.gz"))
def nifti_gzip_named_nii(folder: Path) -> Case:
    path = compress(write(folder, image()))
    path.rename(folder / "v.nii")
    return case(folder / "v.nii")


@registry.add("a plain file under the name `.nii.gz`", refused(UnreadableVolumeError, "rename it to .nii"))
def nifti_plain_named_gz(folder: Path) -> Case:
    write(folder, image()).rename(folder / "v.nii.gz")
    return case(folder / "v.nii.gz")


@registry.add("a web page that was saved as `.nii`", refused(UnreadableVolumeError, "no NIfTI header"))
def nifti_web_page(folder: Path) -> Case:
    (folder / "v.nii").write_text("<html>" + "not found " * 100 + "</html>", encoding="ascii")
    return Case(folder / "v.nii")


@registry.add("a time series of three volumes", refused(VolumeShapeError, "4-D series"))
def nifti_four_axes(folder: Path) -> Case:
    voxels = np.stack([body(seed=seed) for seed in range(3)], -1)
    return case(write(folder, image(voxels)), voxels)


@registry.add("further axes of length one", right())
def nifti_trailing_axes(folder: Path) -> Case:
    return case(write(folder, image(body()[..., None, None])))


@registry.add("a single plane with two axes", refused(VolumeShapeError, "three spatial axes"))
def nifti_two_axes(folder: Path) -> Case:
    return case(write(folder, image(body()[..., 0])), body()[..., 0])


@registry.add("a single slice", refused(TooFewSlicesError, "single one"))
def nifti_one_slice(folder: Path) -> Case:
    return case(write(folder, image(body()[..., :1])), body()[..., :1])


@registry.add("color voxels", refused(VolumeShapeError, "color voxels"))
def nifti_color(folder: Path) -> Case:
    voxels = np.zeros(body().shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    voxels["R"] = body() % 256
    return case(write(folder, image(voxels)), np.stack([voxels[name] for name in "RGB"], -1))


@registry.add("complex voxels", refused(VolumeShapeError, "complex voxels"))
def nifti_complex(folder: Path) -> Case:
    voxels = body() + 1j * body(seed=1)
    return case(write(folder, image(voxels)), voxels)


@registry.add("one bit a voxel (datatype 1)", refused(UnreadableVolumeError, "header is not valid: data code 1"))
def nifti_one_bit(folder: Path) -> Case:
    return Case(patch(write(folder, image()), 70, "<hh", 1, 1))


@registry.add("whole numbers of 64 bits, beyond what float32 holds", noted("float32 rounds them"))
def nifti_large_numbers(folder: Path) -> Case:
    voxels = body().astype(np.int64)
    voxels[0, 0, 0] = 2**24 + 1
    made = image(voxels.astype(np.int32))
    made.set_data_dtype(np.int32)
    return case(write(folder, made), voxels)


@registry.add("some voxels are NaN", refused(NonFiniteVoxelsError, "2 of 1536 voxels"))
def nifti_nan(folder: Path) -> Case:
    voxels = body().astype(np.float32)
    voxels[3, 4, 5] = voxels[0, 0, 0] = np.nan
    return case(write(folder, image(voxels)), voxels)


@registry.add("float64 voxels beyond float32", refused(NonFiniteVoxelsError, "NaN or infinite"))
def nifti_beyond_float32(folder: Path) -> Case:
    voxels = body().astype(np.float64)
    voxels[3, 4, 5] = 1e200
    return case(write(folder, image(voxels)), voxels)


@registry.add("all voxels are the same", refused(ZeroVarianceError, "all voxels are"))
def nifti_constant(folder: Path) -> Case:
    voxels = np.full(body().shape, -1000, np.int16)
    return case(write(folder, image(voxels)), voxels)


@registry.add(
    "CT saved without its rescale intercept: air is 24",
    refused(IntensityUnitsError, "do not look like Hounsfield units"),
    modality="auto",
)
def nifti_stored_values(folder: Path) -> Case:
    return case(write(folder, image(body() + np.int16(1024))), body() + np.int16(1024))


@registry.add(
    "the same, with a round padding of -2000",
    refused(IntensityUnitsError, "do not look like Hounsfield units"),
    modality="auto",
)
def nifti_stored_values_padded(folder: Path) -> Case:
    voxels = body() + np.int16(1024)
    x, y = np.mgrid[:16, :12]
    voxels[((x - 7.5) / 7.5) ** 2 + ((y - 5.5) / 5.5) ** 2 > 1] = -2000
    return case(write(folder, image(voxels)), voxels)


@registry.add("an Analyze 7.5 pair, `.hdr` and `.img`", refused(UnreadableVolumeError, "pairs of .hdr and .img"))
def nifti_analyze_pair(folder: Path) -> Case:
    nib.save(nib.AnalyzeImage(body(), AFFINE), folder / "v.img")
    return case(folder / "v.hdr")


@registry.add("a NIfTI pair, `.hdr` and `.img`", refused(UnreadableVolumeError, "pairs of .hdr and .img"))
def nifti_pair(folder: Path) -> Case:
    nib.save(nib.Nifti1Pair(body(), AFFINE), folder / "v.img")
    return case(folder / "v.hdr")
