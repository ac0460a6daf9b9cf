# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Strict reading of NIfTI files: a file is read completely or an error is raised."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from monai_medpruner.errors import MedPrunerError, SpacingError, UnreadableVolumeError, VolumeShapeError
from monai_medpruner.memory import check_fits_memory

__all__ = ["NIFTI_SUFFIXES", "read_nifti"]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_BYTES = 540  # size of the NIfTI-2 header, the longer one
_LENGTH_UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}  # xyzt_units & 7; 2 is mm; 0, unknown, is read as mm
_FLOAT32_EXACT = 2**24
_DAMAGED = (OSError, EOFError, ValueError, OverflowError, zlib.error, ImageFileError, HeaderDataError, HeaderTypeError)


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read a single-file NIfTI-1 or NIfTI-2 volume, compressed or not.

    A compressed file is read to its end to verify its checksum, so any truncation or damage raises an error.

    Args:
        path: a file named ``.nii`` or ``.nii.gz``.

    Returns:
        voxels (X, Y, Z) or (X, Y, Z, C), float32, scaled by ``scl_slope`` and ``scl_inter``, NaN and Inf unchanged;
        affine (4, 4) float64, RAS mm; metadata ``nonuniform`` (False) and ``notes``.

    Raises:
        UnreadableVolumeError: if the file is empty, truncated, damaged, in another format than its name states, or
            larger than the memory.
        VolumeShapeError: if the array does not have three spatial axes (and at most one channel axis) of scalar voxels.
        SpacingError: if the only orientation is the quaternion and its voxel sizes are not positive.
    """
    compressed = path.name.lower().endswith(".gz")
    with path.open("rb") as file:
        magic = file.read(2)
    if not magic:
        raise UnreadableVolumeError(f"{path.name} is empty (0 bytes)")
    if (magic == _GZIP_MAGIC) != compressed:
        found, name = ("not gzip", ".nii") if compressed else ("gzip", ".nii.gz")
        raise UnreadableVolumeError(f"{path.name}: the content is {found}. If it is a NIfTI file, rename it to {name}.")
    with gzip.open(path, "rb") if compressed else path.open("rb") as file:
        return _read_stream(file, path.name)


def _read_stream(file: io.BufferedIOBase, name: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read the header, the voxels and the rest of the stream; failures become typed errors."""
    with _typed_errors(name):
        start = file.read(_HEADER_BYTES)
        nifti = next((i for i in (nib.Nifti2Image, nib.Nifti1Image) if i.header_class.may_contain_header(start)), None)
        if nifti is None:
            raise UnreadableVolumeError(f"{name} has no NIfTI header")
        raw = nifti.header_class(start[: nifti.header_class.sizeof_hdr], check=False)
        file.seek(0)
        image = nifti.from_file_map(nifti.make_file_map({"image": file}), mmap=False)
        _check_header(image, raw, name)
        stored = np.asanyarray(image.dataobj)
        while file.read(2**20):  # the checksum of a gzip file is at its end
            pass
    notes = []
    if stored.dtype.kind in "iu" and stored.dtype.itemsize >= 4:
        largest = max(abs(int(stored.max())), abs(int(stored.min())))
        if largest > _FLOAT32_EXACT:
            notes.append(f"voxels up to {largest}: beyond {_FLOAT32_EXACT} float32 rounds them")
    affine = np.array(image.affine, dtype=np.float64)
    if int(raw["sform_code"]) <= 0 and int(raw["qform_code"]) <= 0:
        notes.append("the NIfTI header gives no orientation: nibabel's default is used (x to the left, y front, z up)")
    unit = _LENGTH_UNITS.get(int(raw["xyzt_units"]) & 7)
    if unit is not None:
        affine[:3] *= unit[1]
        notes.append(f"the NIfTI header gives lengths in {unit[0]}: converted to mm")
    return stored.astype(np.float32, copy=False), affine, {"nonuniform": False, "notes": notes}


def _check_header(image: nib.Nifti1Image, raw: nib.Nifti1Header, name: str) -> None:
    """Raise if the header shows that the file is not a supported volume, before the voxels are read."""
    shape, dtype = image.shape, image.get_data_dtype()
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise VolumeShapeError(
            f"{name} has shape {tuple(int(i) for i in shape)}; expected three spatial axes and at most one channel axis"
        )
    if dtype.kind not in "iufb":
        kind = "complex" if dtype.kind == "c" else "color"
        raise VolumeShapeError(f"{name} has {kind} voxels; expected one real number per voxel")
    sizes = np.asarray(raw["pixdim"][1:4], dtype=float)
    # nibabel would silently replace such sizes by a spacing that was never measured
    if int(raw["sform_code"]) <= 0 and not (np.isfinite(sizes) & (sizes > 0)).all():
        raise SpacingError(f"{name} has voxel sizes {sizes.tolist()} mm; expected three positive numbers")
    stored: Any = image.dataobj
    scaled = stored.slope != 1 or stored.inter != 0
    # bytes per voxel: as stored (twice while unpacking), scaled in float64, as float32
    check_fits_memory(shape, 2 * dtype.itemsize + (8 if scaled else 0) + 4)


@contextmanager
def _typed_errors(name: str) -> Iterator[None]:
    """Convert errors of nibabel, gzip and the file system for a damaged file to UnreadableVolumeError."""
    try:
        yield
    except MedPrunerError:
        raise
    except _DAMAGED as error:
        raise UnreadableVolumeError(f"{name} is cut short or damaged ({type(error).__name__} while reading)") from error
