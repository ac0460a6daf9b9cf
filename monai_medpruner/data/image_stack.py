# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Reading volumes without geometry: ``.npy`` arrays and folders of PNG or JPEG slices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_medpruner.data.reading_limits import ReadingLimits
from monai_medpruner.data.series_files import is_dicom
from monai_medpruner.errors import DuplicateSlicesError, SliceGeometryError, UnreadableVolumeError, VolumeShapeError
from monai_medpruner.memory import check_fits_memory

__all__ = ["SLICE_SUFFIXES", "is_image_folder", "read_image_folder", "read_npy"]

SLICE_SUFFIXES = (".png", ".jpg", ".jpeg")
_LAST_NUMBER = re.compile(r"(?P<before>.*?)(?P<number>[0-9]+)(?P<after>[^0-9]*)", flags=re.DOTALL)
# columns run to the patient's left, rows to the back, slices up, as axial slices are displayed; the identity in LPS
_LPS_IDENTITY = np.diag([-1.0, -1.0, 1.0, 1.0])
_NO_GEOMETRY = (
    "has no geometry: orientation, plane, spacing and the direction of the stack are unknown; its slices are read in "
    "file order, as axial slices with a spacing of 1 mm"
)


def read_npy(path: Path, limits: ReadingLimits | None = None) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read a volume in M3D's format: one channel, depth, height, width (1 x 32 x 256 x 256), floats in [0, 1].

    Args:
        path: a ``.npy`` file. Its value range is not checked here, but in
            :py:class:`monai_medpruner.transforms.IntensityWindows`.
        limits: the largest volume to read; None for the defaults.

    Returns:
        voxels (W, H, D) float32: axes are columns, rows, slices, as for DICOM; affine (4, 4), the identity in
        LPS; metadata ``intensity`` ("unit"), ``slice_axis`` (2), ``nonuniform`` (False) and ``notes``.

    Raises:
        UnreadableVolumeError: if the file is truncated, damaged, pickled, or larger than the memory.
        VolumeLimitError: if the volume is larger than ``limits``.
        VolumeShapeError: if the array is not (1, D, H, W) with a real floating-point type.
    """
    try:
        stored = np.lib.format.open_memmap(path, mode="r")  # reads only the header, never unpickles
    except (ValueError, EOFError, OverflowError) as error:
        raise UnreadableVolumeError(
            f"{path.name} is not a plain .npy file: it is cut short or damaged, or contains pickled objects, which "
            "are not loaded because they can run code"
        ) from error
    if stored.ndim != 4 or stored.shape[0] != 1 or 0 in stored.shape:
        raise VolumeShapeError(f"{path.name} has shape {stored.shape}; expected (1, depth, height, width)")
    if stored.dtype.kind != "f":
        raise VolumeShapeError(f"{path.name} has {stored.dtype} values; expected floating-point values in [0, 1]")
    (limits or ReadingLimits()).check(stored.shape, path.name)
    check_fits_memory(stored.shape, 4)
    voxels = np.array(stored[0], dtype=np.float32, order="C")
    return voxels.T, _LPS_IDENTITY.copy(), _meta("unit", [f"a .npy file {_NO_GEOMETRY}"])


def is_image_folder(folder: Path) -> bool:
    """Return whether a folder contains PNG or JPEG slices and no DICOM file.

    Args:
        folder: an existing folder; files whose names start with a dot are ignored. Where DICOM files lie in subfolders,
            as on a CD, pictures beside them are no slices.

    Raises:
        UnreadableVolumeError: if it also contains files of other types, so that the volume is ambiguous.
    """
    files = _files(folder)
    others = [i for i in files if i.suffix.lower() not in SLICE_SUFFIXES]
    if len(others) == len(files) or any(i.suffix.lower() == ".dcm" or is_dicom(i) for i in others):
        return False
    if any(is_dicom(one) for place in folder.iterdir() if place.is_dir() for one in place.rglob("*") if one.is_file()):
        return False
    if others:
        raise UnreadableVolumeError(
            f"{folder.name} mixes {len(files) - len(others)} PNG or JPEG slices with {len(others)} other files; the "
            f"first is {others[0].name}. Keep only the slices of one volume in the folder."
        )
    return True


def read_image_folder(
    path: Path, gray_slices: bool = False, drop_odd_slices: bool = False, limits: ReadingLimits | None = None
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read a folder of 8-bit gray PNG or JPEG slices, sorted by the last number in their names.

    Args:
        path: a folder for which :py:func:`is_image_folder` is true.
        gray_slices: convert slices in color to gray (ITU-R 601-2 luma, transparency ignored), as M3D's own preparation
            does.
        drop_odd_slices: leave out slices that have not the size of most slices, as M3D's own preparation does.
        limits: the largest volume to read; None for the defaults.

    Returns:
        voxels (columns, rows, slices) float32, 0 to 255; affine (4, 4), the identity in LPS; metadata ``intensity``
        ("uint8"), ``slice_axis`` (2), ``nonuniform`` (False) and ``notes``.

    Raises:
        UnreadableVolumeError: if a name has no number or differs from the others' pattern, or a file is damaged.
        VolumeLimitError: if the volume is larger than ``limits``.
        DuplicateSlicesError: if two names have the same number.
        SliceGeometryError: if the slices differ in size.
        VolumeShapeError: if a slice is in color, transparent, or not 8-bit.
    """
    numbered = _number_slices(_files(path))
    numbers = [number for number, _ in numbered]
    notes = [f"a folder of images {_NO_GEOMETRY}", "8-bit gray values: 0 to 255 of an unknown window"]
    if absent := numbers[-1] - numbers[0] + 1 - len(numbers):
        notes.append(f"{absent} numbers between {numbers[0]} and {numbers[-1]} have no slice: slices may be missing")
    files = [file for _, file in numbered]
    if drop_odd_slices:
        files, dropped = _of_usual_size(files)
        notes += dropped
    size = _image_size(files[0])
    (limits or ReadingLimits()).check((*size, len(files)), path.name)
    check_fits_memory((*size, len(files)), 4)
    voxels = np.empty((len(files), *size), dtype=np.float32)
    converted = 0
    for index, file in enumerate(files):
        rows, columns = _image_size(file)
        if (rows, columns) != size:  # before it is decoded
            raise SliceGeometryError(
                f"{file.name} has {columns} x {rows} pixels, {files[0].name} {size[1]} x {size[0]}: all slices of a "
                "volume must have the same size; drop_odd_slices leaves out those that differ from most"
            )
        voxels[index], changed = _read_slice(file, gray_slices)
        converted += changed
    if converted:
        notes.append(f"{converted} of {len(files)} slices were in color or transparent and were converted to gray")
    return voxels.T, _LPS_IDENTITY.copy(), _meta("uint8", notes)


def _of_usual_size(files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the files of the most frequent size, and a note if there are others."""
    sizes = [_image_size(file)[::-1] for file in files]
    (usual, count), *others = Counter(sizes).most_common()
    if not others:
        return list(files), []
    kept = [file for file, size in zip(files, sizes, strict=True) if size == usual]
    odd = ", ".join(f"{columns} x {rows}" for (columns, rows), _ in others[:3])
    return kept, [
        f"{len(files) - count} of {len(files)} slices were left out, since they have not the {usual[0]} x {usual[1]} "
        f"pixels of the others but {odd}{', …' if len(others) > 3 else ''}: slices are missing"
    ]


def _meta(intensity: str, notes: list[str]) -> dict[str, Any]:
    return {"intensity": intensity, "slice_axis": 2, "nonuniform": False, "notes": notes}


def _files(folder: Path) -> list[Path]:
    return sorted(i for i in folder.iterdir() if i.is_file() and not i.name.startswith("."))


def _number_slices(files: Sequence[Path]) -> list[tuple[int, Path]]:
    """Number and path of each slice, sorted numerically: 2 before 10."""
    numbered: dict[int, Path] = {}
    pattern: tuple[str, str] | None = None
    for file in files:
        match = _LAST_NUMBER.fullmatch(file.stem)
        if match is None:
            raise UnreadableVolumeError(
                f"{file.name} has no number: the position of this slice in the stack is unknown"
            )
        pattern = pattern or (match["before"], match["after"])
        if pattern != (match["before"], match["after"]):
            raise UnreadableVolumeError(
                f"the names {files[0].name} and {file.name} differ in more than their number: are there two stacks "
                "in the folder?"
            )
        if (number := int(match["number"])) in numbered:
            raise DuplicateSlicesError(f"{numbered[number].name} and {file.name} are both slice {number}")
        numbered[number] = file
    return sorted(numbered.items())


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """Open an image; failures to read or decode it become typed errors."""
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableVolumeError(f"{file.name} is not a PNG or JPEG image, or is cut short or damaged") from error


def _image_size(file: Path) -> tuple[int, int]:
    """Return rows and columns of one image, from its header."""
    with _opened(file) as image:
        return image.height, image.width


def _read_slice(file: Path, gray: bool) -> tuple[np.ndarray, bool]:
    """Return the gray values of one image, (rows, columns) uint8, and whether they were converted from color."""
    with _opened(file) as image:
        mode = image.mode
        # palettes and transparency are resolved to RGBA; other modes are kept
        pixels = np.asarray(image.convert("RGBA") if mode in ("P", "LA", "RGBA") else image)
        luma = np.asarray(image.convert("L")) if gray and pixels.ndim == 3 else None
    if mode not in ("L", "LA", "P", "RGB", "RGBA"):
        raise VolumeShapeError(f"{file.name} has pixels of mode {mode}; expected 8-bit gray pixels")
    if pixels.ndim == 2:
        return pixels, False
    colored = bool((pixels[..., 1:3] != pixels[..., :1]).any() or (pixels[..., 3:] != 255).any())
    if colored and luma is None:
        raise VolumeShapeError(
            f"{file.name} is in color or transparent; expected one gray value per pixel. gray_slices converts it"
        )
    return (luma, True) if colored and luma is not None else (pixels[..., 0], False)
