# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What was kept of a study, on the grid of its file: a label map, and the importance of the tokens."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.results import SliceRecord, StudyRecord, VolumeGeometry

__all__ = [
    "KEEP_LABELS",
    "KeepMap",
    "file_axes",
    "is_sheared",
    "keep_map",
    "nifti_image",
    "on_file_grid",
    "token_of_pixels",
    "write_nifti",
]

#: label values by name. 1: the slice was read, but the token here was merged into another one or dropped. 0: the
#: encoder did not see the voxel, because its slice was dropped or it was cropped away
KEEP_LABELS = {"kept slice": 1, "kept token": 2, "contextual token": 3}
_SLICE, _PRIMARY, _CONTEXTUAL = KEEP_LABELS.values()
_SHEAR = 1e-4


@dataclass(frozen=True, eq=False)
class KeepMap:
    """What was kept of a study, on the grid of its file.

    Args:
        labels: uint8 ``(X, Y, Z)``, values of :data:`KEEP_LABELS`; 0 where the encoder saw nothing.
        importance: float32 ``(X, Y, Z)``, importance of the token at each voxel, 1 being the mean of a slice; 0 where
            the encoder saw nothing. None where no scores were computed.
        affine: float64 ``(4, 4)``, voxel indices of the file to RAS mm. The identity where the file has no geometry.
    """

    labels: np.ndarray
    importance: np.ndarray | None
    affine: np.ndarray


def keep_map(record: StudyRecord) -> KeepMap:
    """Place the kept slices and tokens of a study on the grid of its file.

    A voxel gets the label and the importance of the token at its center: axes are permuted and flipped back, nothing
    is resampled. Tokens divide the encoded part of a slice evenly, whatever size the image processor gave it.
    """
    geometry = record.geometry
    height, width, _ = geometry.shape
    (top, bottom), (left, right) = geometry.crop or ((0, height), (0, width))
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    scored = all(one.importance is not None for one in record.slices)
    importance = np.zeros(geometry.shape, dtype=np.float32) if scored else None
    for index, one in zip(record.slice_indices, record.slices, strict=True):
        place = np.s_[top:bottom, left:right, index]
        token = token_of_pixels(one.grid, (bottom - top, right - left))
        labels[place] = _token_labels(one)[token]
        if importance is not None and one.importance is not None:
            importance[place] = one.importance.numpy()[token]
    return KeepMap(
        on_file_grid(labels, geometry),
        None if importance is None else on_file_grid(importance, geometry),
        geometry.original_affine.numpy(),
    )


def token_of_pixels(grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Return the index of the token at the center of each pixel, int64 of shape ``size``.

    Args:
        grid: rows and columns of the tokens.
        size: rows and columns of the pixels that the tokens divide evenly.
    """
    row, column = (
        (2 * np.arange(pixels) + 1) * tokens // (2 * pixels) for pixels, tokens in zip(size, grid, strict=True)
    )
    return row[:, None] * grid[1] + column


def file_axes(geometry: VolumeGeometry) -> list[tuple[int, bool]]:
    """Return, for rows, columns and slices of a study, the axis of its file and whether it runs the other way.

    Also exact for oblique and sheared affines.
    """
    between = np.linalg.inv(geometry.original_affine.numpy()[:3, :3]) @ geometry.affine.numpy()[:3, :3]
    # column j is axis j of the study in the axes of the file: one nonzero entry, negative if the axis was flipped
    return [(int(axis), bool(between[axis, j] < 0)) for j, axis in enumerate(np.abs(between).argmax(axis=0))]


def on_file_grid(voxels: np.ndarray, geometry: VolumeGeometry) -> np.ndarray:
    """Undo the permutation and the flips of axes between a study and its file.

    Args:
        voxels: ``(H, W, D)``, in the view of the record.
        geometry: of the record.

    Returns:
        ``(X, Y, Z)``, a view of the same voxels.
    """
    axes = file_axes(geometry)
    flipped = tuple(axis for axis, turned in axes if turned)
    return np.flip(voxels.transpose(np.argsort([axis for axis, _ in axes])), flipped)


def nifti_image(voxels: np.ndarray, affine: np.ndarray, description: str = "") -> nib.Nifti1Image:
    """Return an image in mm whose sform is the affine; its qform too, unless the affine is sheared.

    A quaternion cannot represent shear: readers that use the qform would misplace the slices.

    Args:
        voxels: ``(X, Y, Z)``.
        affine: voxel indices to RAS mm.
        description: text in the header, at most 79 bytes.
    """
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()
    image.set_sform(affine, code="scanner")
    if not is_sheared(affine):
        image.set_qform(affine, code="scanner")
    return image


def write_nifti(voxels: np.ndarray, affine: np.ndarray, path: Path, description: str = "") -> None:
    """Write an image, atomically; see :func:`nifti_image`.

    Args:
        voxels: ``(X, Y, Z)``.
        affine: voxel indices to RAS mm.
        path: file ending in ``.nii.gz``. The same image gives the same bytes.
        description: text in the header, at most 79 bytes.

    Raises:
        OutputFolderError: the file cannot be written.
    """
    content = nifti_image(voxels, affine, description).to_bytes()
    atomic_write(path, gzip.compress(content, compresslevel=6, mtime=0))


def is_sheared(affine: np.ndarray) -> bool:
    """Return whether an affine's axes are not orthogonal, as with gantry tilt. Viewers built on ITK refuse these."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > _SHEAR)


def _token_labels(record: SliceRecord) -> np.ndarray:
    """Return the label of each token of a kept slice, uint8 ``(N,)``."""
    labels = np.full(record.primary.shape, _SLICE, dtype=np.uint8)
    labels[record.primary.numpy()] = _PRIMARY
    labels[record.contextual.numpy()] = _CONTEXTUAL
    return labels
