# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The kept slices and tokens of a study as a label map on the study's grid."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel as nib
import numpy as np

from monai_medpruner.report.keep_map import KEEP_LABELS, is_sheared, keep_map, nifti_image
from monai_medpruner.results import StudyRecord

__all__ = ["OVERLAY_LABELS", "is_sheared", "overlay", "present_labels", "write_overlay"]

#: label values by name; 0 marks what did not reach the encoder: dropped slices, and what was cropped away
OVERLAY_LABELS = KEEP_LABELS
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def overlay(record: StudyRecord) -> tuple[np.ndarray, np.ndarray]:
    """Return the label map of a study.

    Args:
        record: record of the study.

    Returns:
        The label map on the grid of the study's file, uint8 ``(X, Y, Z)``, with the values of :data:`OVERLAY_LABELS`,
        and the affine of that file (RAS, mm).
    """
    found = keep_map(record)
    return found.labels, found.affine


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
    nib.save(nifti_image(labels, affine), path)
