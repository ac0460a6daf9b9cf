# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Reading an input with this package, and with nibabel or pydicom, which know nothing of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut

from hostile_inputs.case import Case, HostileInput, Truth, same
from monai_medpruner.errors import MedPrunerError
from monai_medpruner.transforms import CheckVolume, IntensityWindows, LoadVolume, SlicePlane

__all__ = ["Outcome", "independent", "outcome"]


@dataclass(frozen=True)
class Outcome:
    """What this package did with an input.

    Attributes:
        outcome: "right", "noted", "refused", or "wrong".
        error: name of the error's type, where refused.
        message: of the error, or the notes.
        round_trip: what the volume was found equal to, or why not; empty without a volume.
    """

    outcome: str
    error: str = ""
    message: str = ""
    round_trip: str = ""


def outcome(one: HostileInput, case: Case) -> Outcome:
    """Load, check, orient and window an input, as every bundle does, and compare what was loaded."""
    try:
        loaded = CheckVolume()(LoadVolume()(case.path))
        shown = IntensityWindows(modality=one.modality)(SlicePlane()(loaded))
    except MedPrunerError as error:
        return Outcome("refused", type(error).__name__, str(error))
    found = Truth(loaded[0].numpy(), loaded.affine.numpy())
    notes = "; ".join(shown.meta["notes"])
    if case.truth is None:
        return Outcome("wrong", message=notes, round_trip="there is no right volume")
    if not same(found, case.truth):
        return Outcome("wrong", message=notes, round_trip="differs from what was written")
    return Outcome("noted" if notes else "right", message=notes, round_trip=_round_trip(one, case, found))


def _round_trip(one: HostileInput, case: Case, found: Truth) -> str:
    name = "nibabel" if one.format == "NIfTI" else "pydicom"
    if one.other_oracle:
        return f"equal to what was written; {name} {one.other_oracle}"
    return f"equal to {name}" if same(found, independent(one, case)) else f"differs from {name}"


def independent(one: HostileInput, case: Case) -> Truth:
    """Return the volume that nibabel, or pydicom slice by slice, finds."""
    if one.format == "NIfTI":
        image = nib.load(case.path)
        return Truth(image.get_fdata(), image.affine)
    files = case.slices
    if files is None:
        files = sorted(path for path in case.path.rglob("*") if path.is_file()) if case.path.is_dir() else [case.path]
    return _pydicom_volume(files)


def _pydicom_volume(files: list[Path]) -> Truth:
    """Stack slices by pydicom: values after the modality LUT, places from the first and the last slice."""
    slices = [one for path in files for one in _single_frames(pydicom.dcmread(path))]
    row, column = (np.array(slices[0].ImageOrientationPatient[part], float) for part in (slice(3), slice(3, 6)))
    normal = np.cross(row, column)
    slices.sort(key=lambda one: float(np.dot(normal, np.array(one.ImagePositionPatient, float))))
    voxels = np.stack([apply_modality_lut(one.pixel_array, one) for one in slices]).astype(np.float64)
    first, last = (np.array(slices[index].ImagePositionPatient, float) for index in (0, -1))
    between_rows, between_columns = (float(size) for size in slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3] = np.stack(
        [row * between_columns, column * between_rows, (last - first) / (len(slices) - 1), first], axis=1
    )
    affine[:2] *= -1  # LPS to RAS
    return Truth(voxels.transpose(2, 1, 0), affine)


def _single_frames(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    """The frames of an object with functional groups, each as a single-frame dataset; the dataset itself otherwise."""
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        return [dataset]
    frames = []
    size = len(dataset.PixelData) // int(dataset.NumberOfFrames)
    for number, own in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame = copy.deepcopy(dataset)
        frame.NumberOfFrames, frame.PixelData = 1, dataset.PixelData[number * size : (number + 1) * size]
        for group in (dataset.SharedFunctionalGroupsSequence[0], own):
            for macro in group:
                frame.update(macro.value[0])
        frames.append(frame)
    return frames
