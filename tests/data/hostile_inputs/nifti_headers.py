# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""NIfTI headers: sizes, offsets, scaling, placement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from hostile_inputs.case import Case, Registry, body, noted, refused, right
from hostile_inputs.nifti_base import AFFINE, case, image, patch, write
from monai_medpruner.errors import (
    SliceGeometryError,
    SpacingError,
    UnreadableVolumeError,
    VolumeLimitError,
    VolumeShapeError,
)

__all__ = ["INPUTS"]

registry = Registry("NIfTI", modality="ct")
INPUTS = registry.inputs
DIM, PIXDIM, VOX_OFFSET, SCALE, UNITS, CODES, QUATERNION, SROWS = 40, 76, 108, 112, 123, 252, 256, 280


def both(sform: np.ndarray, qform: np.ndarray) -> Any:
    """Return an image with two placements."""
    made = nib.Nifti1Image(body(), None)
    made.set_sform(sform, 1)
    made.set_qform(qform, 1)
    return made


@registry.add("`vox_offset` is 0", noted("read from byte 352"), other_oracle="takes the header for voxels")
def nifti_offset_zero(folder: Path) -> Case:
    return case(patch(write(folder, image()), VOX_OFFSET, "<f", 0.0))


@registry.add(
    "`vox_offset` is 0, and the header has extensions", refused(UnreadableVolumeError, "where the voxels begin")
)
def nifti_offset_zero_extended(folder: Path) -> Case:
    made = image()
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"text"))
    return Case(patch(write(folder, made), VOX_OFFSET, "<f", 0.0))


@registry.add("`vox_offset` lies beyond the file", refused(UnreadableVolumeError, "cut short"))
def nifti_offset_beyond(folder: Path) -> Case:
    return Case(patch(write(folder, image()), VOX_OFFSET, "<f", 1e6))


@registry.add("`vox_offset` is NaN", refused(UnreadableVolumeError, "header is not valid"))
def nifti_offset_nan(folder: Path) -> Case:
    return Case(patch(write(folder, image()), VOX_OFFSET, "<f", float("nan")))


@registry.add("`vox_offset` points into the header", refused(UnreadableVolumeError, "vox offset 112 too low"))
def nifti_offset_inside(folder: Path) -> Case:
    return Case(patch(write(folder, image()), VOX_OFFSET, "<f", 112.0))


@registry.add("header extensions", right())
def nifti_extensions(folder: Path) -> Case:
    made = image()
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"text" * 100))
    return case(write(folder, made))


@registry.add(
    "an extension of 1 GiB by its size, in a file of 3 kB",
    noted("its vox_offset is followed"),
    other_oracle="tries to read the extension",
)
def nifti_extension_huge(folder: Path) -> Case:
    made = image()
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"text"))
    path = patch(write(folder, made), 352, "<i", 1 << 30)
    return case(patch(path, SCALE, "<2f", 2.0, 24.0), body() * 2.0 + 24.0)


@registry.add(
    "an extension that runs into the voxels, and bytes after them",
    refused(UnreadableVolumeError, "where they begin is not known"),
)
def nifti_extension_overlaps(folder: Path) -> Case:
    made = image()
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"text" * 10))
    path = write(folder, made)
    return Case(patch(path, VOX_OFFSET, "<f", float(nib.load(path).dataobj.offset - 16)))


@registry.add("30,000 x 30,000 x 30,000 voxels are declared", refused(VolumeLimitError, "limit_voxels"))
def nifti_huge(folder: Path) -> Case:
    return Case(patch(write(folder, image()), DIM, "<4h", 3, 30000, 30000, 30000))


@registry.add("`dim[0]` is 9", refused(UnreadableVolumeError, "header is not valid"))
def nifti_nine_axes(folder: Path) -> Case:
    return Case(patch(write(folder, image()), DIM, "<h", 9))


@registry.add("a size is negative", refused(VolumeShapeError, "three spatial axes"))
def nifti_negative_size(folder: Path) -> Case:
    return Case(patch(write(folder, image()), DIM + 6, "<h", -8))


@registry.add("`sizeof_hdr` is 0", right())
def nifti_header_size(folder: Path) -> Case:
    return case(patch(write(folder, image()), 0, "<i", 0))


@registry.add("`scl_slope` is 0: no scaling", right())
def nifti_slope_zero(folder: Path) -> Case:
    return case(patch(write(folder, image()), SCALE, "<2f", 0.0, 55.0))


@registry.add("`scl_slope` is NaN: no scaling", right())
def nifti_slope_nan(folder: Path) -> Case:
    return case(patch(write(folder, image()), SCALE, "<2f", float("nan"), float("nan")))


@registry.add(
    "`scl_inter` is NaN, `scl_slope` is 1", refused(UnreadableVolumeError, "header is not valid: Valid slope")
)
def nifti_intercept_nan(folder: Path) -> Case:
    return Case(patch(write(folder, image()), SCALE, "<2f", 1.0, float("nan")))


@registry.add("a negative slope and an intercept", right())
def nifti_slope_negative(folder: Path) -> Case:
    return case(patch(write(folder, image()), SCALE, "<2f", -0.5, 20.0), body() * -0.5 + 20.0)


@registry.add("codes of sform and qform are 0", noted("no orientation"))
def nifti_no_placement(folder: Path) -> Case:
    affine = np.diag([-0.8, 0.8, 5.0, 1.0])
    affine[:3, 3] = [0.8 * 7.5, -0.8 * 5.5, -5.0 * 3.5]
    return case(patch(write(folder, image()), CODES, "<2h", 0, 0), affine=affine)


@registry.add("sform and qform place the volume 12 mm apart", noted("12.0 mm apart: the sform is used"))
def nifti_placements_differ(folder: Path) -> Case:
    other = AFFINE.copy()
    other[2, 3] += 12
    return case(write(folder, both(AFFINE, other)))


@registry.add("sform and qform are mirror images", refused(SliceGeometryError, "left and right"))
def nifti_placements_mirrored(folder: Path) -> Case:
    other = AFFINE.copy()
    other[0] *= -1
    return Case(write(folder, both(AFFINE, other)))


@registry.add(
    "sform of zeros beside a good qform", noted("sform is degenerate"), other_oracle="takes the sform of zeros"
)
def nifti_sform_zero(folder: Path) -> Case:
    return case(patch(write(folder, both(AFFINE, AFFINE)), SROWS, "<12f", *[0.0] * 12))


@registry.add("sform with NaN, no qform", refused(SpacingError, "NaN"))
def nifti_sform_nan(folder: Path) -> Case:
    return Case(patch(write(folder, image()), SROWS, "<f", float("nan")))


@registry.add("an impossible quaternion beside a good sform", noted("qform is degenerate"))
def nifti_quaternion(folder: Path) -> Case:
    return case(patch(write(folder, both(AFFINE, AFFINE)), QUATERNION, "<3f", 3.0, 3.0, 3.0))


@registry.add("qform alone, `pixdim[0]` (its sign) is 0", right())
def nifti_qfac_zero(folder: Path) -> Case:
    affine = AFFINE.copy()
    affine[0, 0] *= -1
    made = image(affine=affine)
    made.set_qform(affine, 1)
    made.set_sform(None, 0)
    return case(patch(write(folder, made), PIXDIM, "<f", 0.0), affine=affine)


@registry.add("qform alone, `pixdim[0]` is -2: readers disagree on its sign", refused(SpacingError, "NaN"))
def nifti_qfac_unknown(folder: Path) -> Case:
    made = image()
    made.set_qform(AFFINE, 1)
    made.set_sform(None, 0)
    return Case(patch(write(folder, made), PIXDIM, "<f", -2.0))


@registry.add("qform alone, a voxel size is 0", refused(SpacingError, "three positive numbers"))
def nifti_size_zero(folder: Path) -> Case:
    made = image()
    made.set_qform(AFFINE, 1)
    made.set_sform(None, 0)
    return Case(patch(write(folder, made), PIXDIM + 12, "<f", 0.0))


@registry.add("qform alone, a voxel size is negative", refused(SpacingError, "three positive numbers"))
def nifti_size_negative(folder: Path) -> Case:
    made = image()
    made.set_qform(AFFINE, 1)
    made.set_sform(None, 0)
    return Case(patch(write(folder, made), PIXDIM + 4, "<f", -0.8))


@registry.add("voxel sizes that contradict the sform", noted("the sform is used"))
def nifti_sizes_differ(folder: Path) -> Case:
    return case(patch(write(folder, image()), PIXDIM + 4, "<3f", 0.8, 0.8, 2.5))


@registry.add("voxel sizes of 0 beside a good sform", right())
def nifti_sizes_zero(folder: Path) -> Case:
    return case(patch(write(folder, image()), PIXDIM + 4, "<3f", 0.0, 0.0, 0.0))


@registry.add("sheared by a gantry tilt of 20 degrees", noted("gantry tilt: slices are stacked at 20.0 degrees"))
def nifti_tilted(folder: Path) -> Case:
    affine = AFFINE.copy()
    affine[1, 2] = 5 * np.tan(np.radians(20))
    return case(write(folder, image(affine=affine)), affine=affine)


@registry.add("sheared within the slices", refused(SliceGeometryError, "sheared"))
def nifti_sheared(folder: Path) -> Case:
    affine = AFFINE.copy()
    affine[:3, :3] = (np.eye(3) + 0.3 * (1 - np.eye(3))) @ affine[:3, :3]
    return case(write(folder, image(affine=affine)), affine=affine)


@registry.add("lengths in meters", noted("in meters: converted"), other_oracle="leaves meters to its caller")
def nifti_meters(folder: Path) -> Case:
    affine = AFFINE.copy()
    affine[:3] /= 1000
    return case(patch(write(folder, image(affine=affine)), UNITS, "<b", 1))


@registry.add("lengths in micrometers by the header, in mm by their size", noted("taken as mm"))
def nifti_micrometers(folder: Path) -> Case:
    return case(patch(write(folder, image()), UNITS, "<b", 3))


@registry.add("sform code 200", noted("code is 200, which is not defined"), other_oracle="passes over the sform")
def nifti_code_unknown(folder: Path) -> Case:
    return case(patch(write(folder, image()), CODES + 2, "<h", 200))
