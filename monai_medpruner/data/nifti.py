# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Strict reading of NIfTI files: a file is read completely or an error is raised."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from monai_medpruner.data.nifti_geometry import nifti_geometry
from monai_medpruner.data.reading_limits import ReadingLimits
from monai_medpruner.errors import MedPrunerError, UnreadableVolumeError, VolumeShapeError
from monai_medpruner.memory import check_fits_memory

__all__ = ["NIFTI_SUFFIXES", "read_nifti"]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_BYTES = 540  # size of the NIfTI-2 header, the longer one
_EXTENSION_FLAG_BYTES = 4  # between the header and the voxels, or the extensions
_LEAST_EXTENSION_BYTES = 16
_SINGLE_FILE_MAGIC = (b"n+1", b"n+2\0\r\n\032\n")
_FLOAT32_EXACT = 2**24
_MOST_INFLATION = 1032  # bytes that one compressed byte can stand for: zlib's manual, "Maximum Compression Factor"
_MOST_TRAILING = 2**30  # bytes after the voxels that are read, in search of the checksum
_DAMAGED = (OSError, EOFError, zlib.error)
_NOT_VALID = (ValueError, OverflowError, ImageFileError, HeaderDataError, HeaderTypeError)


def read_nifti(path: Path, limits: ReadingLimits | None = None) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read a single-file NIfTI-1 or NIfTI-2 volume, compressed or not.

    A compressed file is read to its end to verify its checksum, so any truncation or damage raises an error. Nothing is
    allocated for voxels that the file is too short to hold.

    Args:
        path: a file named ``.nii`` or ``.nii.gz``.
        limits: the largest volume to read; None for the defaults.

    Returns:
        voxels (X, Y, Z) or (X, Y, Z, C), float32, scaled by ``scl_slope`` and ``scl_inter``, NaN and Inf unchanged;
        affine (4, 4) float64, RAS mm; metadata as :func:`~.nifti_geometry.nifti_geometry` gives it, and ``notes``.

    Raises:
        UnreadableVolumeError: if the file is empty, truncated, damaged, in another format than its name states, or
            larger than the memory.
        VolumeLimitError: if it is larger than ``limits``, before its voxels are read.
        VolumeShapeError: if the array does not have three spatial axes (and at most one channel axis) of scalar voxels.
        SpacingError, SliceGeometryError: see :func:`~.nifti_geometry.nifti_geometry`.
    """
    compressed = path.name.lower().endswith(".gz")
    with path.open("rb") as file:
        magic = file.read(2)
    if not magic:
        raise UnreadableVolumeError(f"{path.name} is empty (0 bytes)")
    if (magic == _GZIP_MAGIC) != compressed:
        found, name = ("not gzip", ".nii") if compressed else ("gzip", ".nii.gz")
        raise UnreadableVolumeError(f"{path.name}: the content is {found}. If it is a NIfTI file, rename it to {name}.")
    most_bytes = path.stat().st_size * (_MOST_INFLATION if compressed else 1)
    with gzip.open(path, "rb") if compressed else path.open("rb") as file:
        return _read_stream(file, path.name, most_bytes, limits or ReadingLimits())


def _read_stream(
    file: io.BufferedIOBase, name: str, most_bytes: int, limits: ReadingLimits
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read the header, the voxels and the rest of the stream; failures become typed errors."""
    with _typed_errors(name):
        start = file.read(_HEADER_BYTES)
        nifti = next((i for i in (nib.Nifti2Image, nib.Nifti1Image) if i.header_class.may_contain_header(start)), None)
        if nifti is None:
            raise UnreadableVolumeError(f"{name} has no NIfTI header")
        raw = nifti.header_class(start[: nifti.header_class.sizeof_hdr], check=False)
        image, notes = _open_image(nifti, raw, file)
        offset = int(cast(Any, image.dataobj).offset)
        extensions_fit = _extensions_fit(file, raw, offset)
        _check_header(image, name, most_bytes, limits)
        affine, meta, geometry_notes = nifti_geometry(raw, image.shape)
        stored = np.asanyarray(image.dataobj)
        notes += _read_rest(file, name, limits)
        if not extensions_fit:
            problem = "the NIfTI header's extensions do not end where its voxels begin"
            if offset + prod(image.shape) * image.get_data_dtype().itemsize != file.tell():
                raise UnreadableVolumeError(f"{problem}, nor do these end with the file: where they begin is not known")
            notes.append(f"{problem}: its vox_offset is followed, since they end with the file")
    if trailing := stored.ndim - 4 if stored.ndim > 4 else 0:
        stored = stored.reshape(stored.shape[:-trailing])
    if stored.dtype.kind in "iu" and stored.dtype.itemsize >= 4:
        largest = max(abs(int(stored.max())), abs(int(stored.min())))
        if largest > _FLOAT32_EXACT:
            notes.append(f"voxels up to {largest}: beyond {_FLOAT32_EXACT} float32 rounds them")
    return stored.astype(np.float32, copy=False), affine, {**meta, "notes": [*notes, *geometry_notes]}


def _open_image(
    nifti: type[nib.Nifti1Image], raw: nib.Nifti1Header, file: io.BufferedIOBase
) -> tuple[nib.Nifti1Image, list[str]]:
    """Return nibabel's image without extensions, and a note where the header's place of the voxels was corrected."""
    header = nifti.header_class(raw.binaryblock, raw.endianness)  # repairs what nibabel repairs
    missing = raw["magic"].item() in _SINGLE_FILE_MAGIC and float(raw["vox_offset"]) == 0
    first = int(raw.sizeof_hdr) + _EXTENSION_FLAG_BYTES
    file.seek(int(raw.sizeof_hdr))
    notes = []
    if missing:
        if any(file.read(_EXTENSION_FLAG_BYTES)):
            raise UnreadableVolumeError("the NIfTI header does not say where the voxels begin (vox_offset is 0)")
        header["vox_offset"] = first
        notes = [f"the NIfTI header does not say where the voxels begin (vox_offset is 0): read from byte {first}"]
    return nifti(nib.arrayproxy.ArrayProxy(file, header, mmap=False), None, header), notes


def _extensions_fit(file: io.BufferedIOBase, header: nib.Nifti1Header, end: int) -> bool:
    """Whether there are no extensions, or their sizes lead to byte ``end``, where the voxels begin; none is read."""
    file.seek(int(header.sizeof_hdr))
    if file.read(_EXTENSION_FLAG_BYTES)[:1] in (b"", b"\0"):
        return True
    place = int(header.sizeof_hdr) + _EXTENSION_FLAG_BYTES
    while place + _LEAST_EXTENSION_BYTES <= end:
        file.seek(place)
        size = int(np.frombuffer(file.read(4).ljust(4, b"\0"), f"{header.endianness}i4")[0])
        if size < _LEAST_EXTENSION_BYTES or place + size > end:
            return False
        place += size
    return True


def _read_rest(file: io.BufferedIOBase, name: str, limits: ReadingLimits) -> list[str]:
    """Read what follows the voxels, up to the checksum at the end of a gzip file; return notes on it."""
    count, notes = 0, []
    try:
        while block := file.read(2**20):
            count += len(block)
            limits.check_bytes(file.tell(), name)
            if count > _MOST_TRAILING:
                raise UnreadableVolumeError(
                    f"{name} goes on for more than {_MOST_TRAILING >> 30} GiB after the voxels that its header declares"
                )
    except gzip.BadGzipFile as error:
        if not str(error).startswith("Not a gzipped file"):  # a wrong checksum
            raise
        notes.append("something else follows the gzip data: not read")
    if count:
        notes.append(f"{count} bytes follow the voxels that the NIfTI header declares: not read")
    return notes


def _check_header(image: nib.Nifti1Image, name: str, most_bytes: int, limits: ReadingLimits) -> None:
    """Raise if the header shows that the file is not a supported volume, before the voxels are read."""
    shape, dtype = image.shape, image.get_data_dtype()
    if len(shape) < 3 or min(shape) < 1 or any(size != 1 for size in shape[4:]):
        raise VolumeShapeError(
            f"{name} has shape {tuple(int(i) for i in shape)}; expected three spatial axes and at most one channel axis"
        )
    if dtype.kind not in "iufb":
        kind = "complex" if dtype.kind == "c" else "color"
        raise VolumeShapeError(f"{name} has {kind} voxels; expected one real number per voxel")
    limits.check(shape, name)
    stored: Any = image.dataobj
    limits.check_bytes(stored.offset + dtype.itemsize * prod(map(int, shape)), name)
    scaled = stored.slope != 1 or stored.inter != 0
    # bytes per voxel: as stored (twice while unpacking), scaled in float64, as float32
    check_fits_memory(shape, 2 * dtype.itemsize + (8 if scaled else 0) + 4)
    needed = int(stored.offset) + prod(int(size) for size in shape) * dtype.itemsize
    if needed > most_bytes:
        raise UnreadableVolumeError(
            f"{name} is cut short, or its header damaged: it holds at most {most_bytes} bytes, but its header asks for "
            f"{needed}"
        )


@contextmanager
def _typed_errors(name: str) -> Iterator[None]:
    """Convert errors of nibabel, gzip and the file system for a damaged file to UnreadableVolumeError."""
    try:
        yield
    except MedPrunerError:
        raise
    except _NOT_VALID as error:
        raise UnreadableVolumeError(f"{name}: its NIfTI header is not valid: {error}") from error
    except _DAMAGED as error:
        raise UnreadableVolumeError(f"{name} is cut short or damaged ({type(error).__name__} while reading)") from error
