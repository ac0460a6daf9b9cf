# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Geometry of a stack of DICOM slices: order, affine, and deviations from a regular grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_medpruner.errors import DuplicateSlicesError, SliceGeometryError, SpacingError

__all__ = ["SliceStack", "stack_slices"]

# Slices closer than this fraction of the median gap have the same position; DICOM stores positions as decimal text.
_DUPLICATE_FRACTION = 0.01
_DUPLICATE_MM = 1e-4
# A gap is uneven if it deviates by more than 1 % of the median gap (ITK's limit) and more than decimal rounding.
_UNEVEN_FRACTION = 0.01
_UNEVEN_MM = 0.01
# A gap this close to a multiple of the median gap suggests missing slices.
_MISSING_FRACTION = 0.1
_TILT_DEGREES = 0.1
_DRIFT_MM = 0.1
_MAX_GAPS_LISTED = 5
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class SliceStack:
    """Slices ordered along their normal.

    Attributes:
        order: indices into the slices as given, sorted along +normal, normal = row direction x column direction.
        affine: (4, 4) float64, RAS mm, of the array (columns, rows, slices). The third column is the mean step between
            neighboring slices: it places the first and last slice exactly, and every slice if the gaps are even,
            including under gantry tilt (a shear).
        positions_mm: position of each slice along the normal in mm, ascending: its ImagePositionPatient projected on
            the normal, relative to the origin of the patient coordinate system.
        nonuniform: True if the affine does not place every slice exactly: uneven gaps or in-plane shifts.
        tilt_degrees: angle in degrees between the stacking direction and the normal; None if at most 0.1.
        notes: descriptions of irregularities.
    """

    order: list[int]
    affine: np.ndarray
    positions_mm: list[float]
    nonuniform: bool
    tilt_degrees: float | None
    notes: list[str]


def stack_slices(
    positions: np.ndarray, orientation: np.ndarray, pixel_spacing: np.ndarray, thickness: float | None = None
) -> SliceStack:
    """Order parallel slices along their normal and place them in space.

    Args:
        positions: (N, 3) ImagePositionPatient of each slice, LPS mm.
        orientation: (6,) ImageOrientationPatient that all slices share: direction of a row, then of a column.
        pixel_spacing: (2,) PixelSpacing in mm: between rows, then between columns.
        thickness: slice thickness in mm, used as the step if there is only one slice.

    Raises:
        SpacingError: if the pixel spacing is not positive: a negative one would mirror the slices.
        SliceGeometryError: if the two directions are not perpendicular unit vectors.
        DuplicateSlicesError: if two slices have the same position.
    """
    if not (pixel_spacing > 0).all():
        raise SpacingError(f"PixelSpacing is {pixel_spacing.tolist()} mm; expected two positive numbers")
    row, column = orientation[:3], orientation[3:]
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3):
        raise SliceGeometryError(
            "ImageOrientationPatient must contain two perpendicular unit vectors, "
            f"found {np.round(row, 4).tolist()} and {np.round(column, 4).tolist()}"
        )
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    along = positions @ normal
    notes: list[str] = []
    nonuniform, tilt = False, None
    if len(positions) == 1:
        step = normal * (thickness or 1.0)
        source = "the slice thickness" if thickness else "1 mm, because the slice thickness is unknown"
        notes.append(f"single slice: its extent along the normal is {source}")
    else:
        gap_notes = _check_gaps(np.diff(along))
        step = (positions[-1] - positions[0]) / (len(positions) - 1)
        drift = _drift(positions, along)
        tilt = _tilt_degrees(step, normal)
        nonuniform = bool(gap_notes) or drift > _DRIFT_MM
        if tilt is not None:
            notes.append(f"gantry tilt: slices are stacked at {tilt:.1f} degrees to their normal")
        notes += gap_notes
        if drift > _DRIFT_MM:
            notes.append(f"slices are shifted in their plane by up to {drift:.2f} mm against a straight stack")
    affine = np.eye(4)
    affine[:3] = np.stack([row * pixel_spacing[1], column * pixel_spacing[0], step, positions[0]], axis=1)
    return SliceStack(order.tolist(), _LPS_TO_RAS @ affine, along.tolist(), nonuniform, tilt, notes)


def _check_gaps(gaps: np.ndarray) -> list[str]:
    """Raise on duplicate positions; return notes on uneven gaps (empty if even)."""
    usual = float(np.median(gaps))
    duplicates = np.flatnonzero(gaps <= max(_DUPLICATE_MM, _DUPLICATE_FRACTION * usual))
    if len(duplicates):
        raise DuplicateSlicesError(
            f"{len(duplicates)} of {len(gaps) + 1} slices have the same position as another; the first is slice "
            f"{duplicates[0] + 1} along the normal (counted from 0). The series contains several phases or echoes, or "
            "copies. Split it into one folder per volume."
        )
    uneven = np.flatnonzero(np.abs(gaps - usual) > max(_UNEVEN_FRACTION * usual, _UNEVEN_MM))
    if not len(uneven):
        return []
    notes = [f"uneven slice gaps: {gaps.min():.2f} to {gaps.max():.2f} mm, {usual:.2f} mm is usual"]
    missing = np.rint(gaps / usual).astype(int) - 1
    holes = [i for i in uneven if missing[i] > 0 and abs(gaps[i] / usual - missing[i] - 1) <= _MISSING_FRACTION]
    for i in holes[:_MAX_GAPS_LISTED]:
        notes.append(
            f"gap of {gaps[i]:.2f} mm between slices {i} and {i + 1} (counted from 0) where {usual:.2f} mm is usual: "
            f"{missing[i]} {'slice' if missing[i] == 1 else 'slices'} may be missing"
        )
    if len(holes) > _MAX_GAPS_LISTED:
        rest = holes[_MAX_GAPS_LISTED:]
        notes.append(f"{len(rest)} more such gaps: {missing[rest].sum()} more slices may be missing")
    return notes


def _drift(positions: np.ndarray, along: np.ndarray) -> float:
    """Return the largest distance in mm of a slice origin from the line through the first and last origin."""
    part = (along - along[0]) / (along[-1] - along[0])
    line = positions[0] + part[:, None] * (positions[-1] - positions[0])
    return float(np.linalg.norm(positions - line, axis=1).max())


def _tilt_degrees(step: np.ndarray, normal: np.ndarray) -> float | None:
    """Return the angle between the stacking direction and the normal, or None if they agree."""
    forward = step @ normal
    angle = float(np.degrees(np.arctan2(np.linalg.norm(step - forward * normal), forward)))
    return angle if angle > _TILT_DEGREES else None
