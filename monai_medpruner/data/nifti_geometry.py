# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Where a NIfTI header places the voxels, as strictly as DICOM's geometry: no contradiction passes without a note."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

from monai_medpruner.errors import SliceGeometryError, SpacingError

__all__ = ["nifti_geometry"]

_LENGTH_UNITS = {1: ("meters", 1000.0), 3: ("micrometers", 0.001)}  # xyzt_units & 7; 2 is mm; 0, unknown, is read as mm
_PLAUSIBLE_MM = (0.005, 100.0)  # of a voxel, from micro-CT to the coarsest survey
_SQUARE_DEGREES = 0.1  # headers store float32, and oblique stacks are rounded
_MAX_IN_PLANE_SHEAR_DEGREES = 5.0
_SPACING_TOLERANCE = 0.01
_SHIFT_TOLERANCE = 0.5  # voxels, between the corners of two placements
_EQUAL_SPACING = 1e-3
_LAST_CODE = 5  # of nifti1.h's NIFTI_XFORM_*


def nifti_geometry(header: nib.Nifti1Header, shape: tuple[int, ...]) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Return the affine that is used, what the slices' geometry is, and notes on everything that disagrees.

    The sform is used where its code is above 0, else the qform, else voxel sizes alone, as nibabel does.

    Args:
        header: as stored, before nibabel repairs it.
        shape: (X, Y, Z) or more.

    Returns:
        affine (4, 4) float64, RAS mm; metadata ``nonuniform`` (False) and, for a sheared stack, ``slice_axis``,
        ``slice_positions_mm`` and ``gantry_tilt_degrees``; notes.

    Raises:
        SpacingError: no placement has three positive finite voxel sizes.
        SliceGeometryError: sform and qform disagree on left and right, or the rows and columns of a slice are far from
            perpendicular.
    """
    placements = _placements(header)
    notes = _code_notes(header)
    usable = {name: affine for name, affine in placements.items() if _is_usable(affine)}
    if not usable and placements:
        return next(iter(placements.values())), {"nonuniform": False}, notes  # CheckVolume says what is wrong with it
    for name in placements.keys() - usable.keys():
        notes.append(f"the NIfTI header's {name} is degenerate: the {next(iter(usable))} is used")
    if usable:
        name, affine = next(iter(usable.items()))
        if len(usable) == 2:
            notes += _compare_placements(usable["sform"], usable["qform"], shape)
        notes += _compare_sizes(header, affine, name)
    else:
        affine = _from_voxel_sizes(header)
        notes.append("the NIfTI header gives no orientation: nibabel's default is used (x to the left, y front, z up)")
    affine, unit_notes = _in_millimeters(affine, int(header["xyzt_units"]) & 7)
    meta, shear_notes = _slices(affine, shape)
    return affine, {"nonuniform": False, **meta}, [*notes, *unit_notes, *shear_notes]


def _placements(header: nib.Nifti1Header) -> dict[str, np.ndarray]:
    """The affines that the header states, by name, the preferred one first."""
    found = {}
    if int(header["sform_code"]) > 0:
        found["sform"] = np.array(header.get_sform(), dtype=np.float64)
    if int(header["qform_code"]) > 0:
        sizes = np.asarray(header["pixdim"][1:4], dtype=float)
        if (np.isfinite(sizes) & (sizes > 0)).all():
            found["qform"] = _from_quaternion(header)
        elif not found:  # nibabel would silently replace such sizes by a spacing that was never measured
            raise SpacingError(f"the voxel sizes are {sizes.tolist()} mm; expected three positive numbers")
    return found


def _code_notes(header: nib.Nifti1Header) -> list[str]:
    codes = {name: int(header[f"{name}_code"]) for name in ("sform", "qform")}
    return [
        f"the NIfTI header's {name} code is {code}, which is not defined: it is {'used' if code > 0 else 'passed over'}"
        for name, code in codes.items()
        if not 0 <= code <= _LAST_CODE
    ]


def _from_quaternion(header: nib.Nifti1Header) -> np.ndarray:
    """The qform; NaN where the header states none that is possible."""
    sign = float(header["pixdim"][0])
    if sign not in (-1, 1):
        if sign < 0:  # readers disagree on left and right
            return np.full((4, 4), np.nan)
        header = header.copy()
        header["pixdim"][0] = 1  # as every reader takes it
    try:
        return np.array(header.get_qform(), dtype=np.float64)
    except ValueError:  # its three numbers are no part of a unit quaternion
        return np.full((4, 4), np.nan)


def _from_voxel_sizes(header: nib.Nifti1Header) -> np.ndarray:
    sizes = np.asarray(header["pixdim"][1:4], dtype=float)
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise SpacingError(f"the voxel sizes are {sizes.tolist()} mm; expected three positive numbers")
    return np.array(header.get_base_affine(), dtype=np.float64)


def _is_usable(affine: np.ndarray) -> bool:
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (sizes > 0).all():
        return False
    return abs(float(np.linalg.det(affine[:3, :3] / sizes))) > 1e-6


def _compare_placements(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, ...]) -> list[str]:
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        raise SliceGeometryError(
            "the NIfTI header's sform and qform are mirror images of each other: they disagree on the patient's left "
            "and right. Set the wrong one's code to 0, or convert the volume again."
        )
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in shape[:3]], indexing="ij"), -1).reshape(-1, 3)
    apart = np.linalg.norm(corners @ (sform - qform)[:3, :3].T + (sform - qform)[:3, 3], axis=1).max()
    if apart <= _SHIFT_TOLERANCE * np.linalg.norm(sform[:3, :3], axis=0).min():
        return []
    return [f"the NIfTI header's sform and qform place voxels up to {apart:.1f} mm apart: the sform is used"]


def _compare_sizes(header: nib.Nifti1Header, affine: np.ndarray, name: str) -> list[str]:
    sizes = np.asarray(header["pixdim"][1:4], dtype=float)
    columns = affine[:3, :3]
    # the distance of slices, which is shorter than the step of a tilted stack, is a usual voxel size as well
    found = np.linalg.norm(columns, axis=0)
    distances = 1 / np.linalg.norm(np.linalg.inv(columns), axis=1)
    given = np.isfinite(sizes) & (sizes > 0)
    differs = np.minimum(np.abs(sizes - found), np.abs(sizes - distances)) > _SPACING_TOLERANCE * found
    if not (given & differs).any():
        return []
    stated, used = (", ".join(f"{size:.3g}" for size in values) for values in (sizes, found))
    return [f"the NIfTI header's voxel sizes are {stated} mm, those of its {name} {used} mm: the {name} is used"]


def _in_millimeters(affine: np.ndarray, code: int) -> tuple[np.ndarray, list[str]]:
    if code not in _LENGTH_UNITS:
        return affine, []
    name, factor = _LENGTH_UNITS[code]
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if _plausible(sizes) and not _plausible(sizes * factor):
        listed = ", ".join(f"{size:.3g}" for size in sizes)
        return affine, [f"the NIfTI header gives lengths in {name}, but voxel sizes of {listed}: taken as mm"]
    converted = affine.copy()
    converted[:3] *= factor
    return converted, [f"the NIfTI header gives lengths in {name}: converted to mm"]


def _plausible(sizes: np.ndarray) -> bool:
    return bool((sizes >= _PLAUSIBLE_MM[0]).all() and (sizes <= _PLAUSIBLE_MM[1]).all())


def _slices(affine: np.ndarray, shape: tuple[int, ...]) -> tuple[dict[str, Any], list[str]]:
    """Return the metadata and notes of a sheared stack; neither for perpendicular axes.

    The slices of a tilted gantry have perpendicular rows and columns, and are stacked at an angle. Of two axes that
    could be the one they are stacked along, it is that of the larger spacing, then the later one.
    """
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / sizes
    in_plane = {axis: _shear_degrees(*np.delete(directions, axis, axis=1).T) for axis in range(3)}
    if max(in_plane.values()) <= _SQUARE_DEGREES:
        return {}, []
    least = min(in_plane.values())
    square = [axis for axis in range(3) if in_plane[axis] <= max(least, _SQUARE_DEGREES)]
    largest = max(sizes[axis] for axis in square)
    axis = max(axis for axis in square if sizes[axis] >= largest * (1 - _EQUAL_SPACING))
    notes = []
    if in_plane[axis] > _MAX_IN_PLANE_SHEAR_DEGREES:
        raise SliceGeometryError(
            f"the NIfTI affine is sheared: rows and columns of a slice are {in_plane[axis]:.1f} degrees from "
            "perpendicular. Resample the volume to a regular grid."
        )
    if in_plane[axis] > _SQUARE_DEGREES:
        notes.append(f"the NIfTI affine is sheared by {in_plane[axis]:.1f} degrees within the slices: shown as stored")
    normal = np.cross(*np.delete(directions, axis, axis=1).T)
    normal /= np.linalg.norm(normal)
    step = affine[:3, axis]
    normal = normal if step @ normal > 0 else -normal
    tilt = float(np.degrees(np.arccos(np.clip(step @ normal / sizes[axis], -1, 1))))
    meta: dict[str, Any] = {}
    if tilt > _SQUARE_DEGREES:
        positions = affine[:3, 3] @ normal + (step @ normal) * np.arange(shape[axis])
        meta = {"slice_axis": axis, "slice_positions_mm": positions.tolist(), "gantry_tilt_degrees": tilt}
        notes.append(f"gantry tilt: slices are stacked at {tilt:.1f} degrees to their normal")
    return meta, notes


def _shear_degrees(first: np.ndarray, second: np.ndarray) -> float:
    """Angle in degrees by which two directions miss being perpendicular."""
    return float(np.degrees(np.arcsin(min(abs(float(first @ second)), 1.0))))
