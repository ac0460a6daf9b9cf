# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The kept slices and tokens of a study as a label map on the study's grid."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel as nib
import numpy as np

from monai_medpruner.results import SliceRecord, StudyRecord

__all__ = ["OVERLAY_LABELS", "overlay", "present_labels", "write_overlay"]

#: label values by name; 0 marks what did not reach the encoder: dropped slices, and what was cropped away
OVERLAY_LABELS = {"kept slice": 1, "kept token": 2, "contextual token": 3}
_SLICE, _PRIMARY, _CONTEXTUAL = OVERLAY_LABELS.values()
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SHEAR = 1e-4


def overlay(record: StudyRecord) -> tuple[np.ndarray, np.ndarray]:
    """Return the label map of a study.

    Args:
        record: record of the study.

    Returns:
        The label map on the grid of the study's file, uint8 ``(X, Y, Z)``, with the values of :data:`OVERLAY_LABELS`,
        and the affine of that file (RAS, mm).
    """
    geometry = record.geometry
    height, width, _ = geometry.shape
    (top, bottom), (left, right) = geometry.crop or ((0, height), (0, width))
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    for index, one in zip(record.slice_indices, record.slices, strict=True):
        labels[top:bottom, left:right, index] = _paint(one, bottom - top, right - left)
    affine = geometry.original_affine.numpy()
    return _on_file_grid(labels, geometry.affine.numpy(), affine), affine


def present_labels(labels: np.ndarray) -> dict[str, int]:
    """Return the names and values of the labels that occur in a label map."""
    values = set(np.unique(labels).tolist())
    return {name: value for name, value in OVERLAY_LABELS.items() if value in values}


def write_overlay(labels: np.ndarray, affine: np.ndarray, path: Path, compress: bool = True) -> None:
    """Write a label map.

    Args:
        labels: label map ``(X, Y, Z)``.
        affine: voxel indices to RAS mm.
        path: file ending in ``.nii``, ``.nii.gz`` or ``.nrrd``.
        compress: whether to compress an ``.nrrd`` file.
    """
    if path.suffix == ".nrrd":
        image = itk.image_view_from_array(np.ascontiguousarray(labels.transpose(2, 1, 0)))
        placed = _RAS_TO_LPS @ affine
        spacing = np.linalg.norm(placed[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(placed[:3, 3].tolist())
        image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(placed[:3, :3] / spacing)))
        itk.imwrite(image, str(path), compression=compress)
        return
    image = nib.Nifti1Image(labels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    if not is_sheared(affine):
        # a quaternion cannot represent shear: readers that use the qform would misplace the slices
        image.set_qform(affine, code="scanner")
    nib.save(image, path)


def is_sheared(affine: np.ndarray) -> bool:
    """Return whether an affine's axes are not orthogonal, as with gantry tilt. Viewers built on ITK refuse these."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > _SHEAR)


def _on_file_grid(labels: np.ndarray, viewed: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Undo the permutation and flips of axes between two affines; also exact for oblique and sheared affines."""
    between = np.linalg.inv(stored[:3, :3]) @ viewed[:3, :3]
    # column j is viewed axis j in the axes of the file: one nonzero entry, negative if the axis was flipped
    file_axis = np.abs(between).argmax(axis=0)
    flipped = tuple(int(axis) for j, axis in enumerate(file_axis) if between[axis, j] < 0)
    return np.flip(labels.transpose(np.argsort(file_axis)), flipped)


def _paint(record: SliceRecord, height: int, width: int) -> np.ndarray:
    """Return the labels of one kept slice, uint8 ``(H, W)``. A voxel gets the label of the token at its center."""
    rows, columns = record.grid
    tokens = np.full(rows * columns, _SLICE, dtype=np.uint8)
    tokens[record.primary.numpy()] = _PRIMARY
    tokens[record.contextual.numpy()] = _CONTEXTUAL
    row = (2 * np.arange(height) + 1) * rows // (2 * height)
    column = (2 * np.arange(width) + 1) * columns // (2 * width)
    return tokens.reshape(rows, columns)[row][:, column]
