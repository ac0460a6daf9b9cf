# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Writing DICOM series and the volumes they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from hostile_inputs.case import Case, Truth, body

__all__ = ["AXIAL", "GAP", "SPACING", "Edit", "case", "new_object", "stack", "write_slices"]

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ORIGIN = (-10.0, -20.0, 30.0)
SPACING = (0.7, 0.5)  # between rows, between columns
GAP = 2.5
Edit = Callable[[Dataset, int], None]


def new_object(sop_class: str, modality: str, series: str) -> Dataset:
    """Return a dataset with the fields that every DICOM object has."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix="1.2.826.78.")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "1.2.826.76", series, modality
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate, dataset.StudyDate = "X", "X", "", "20260101"
    return dataset


def stack(count: int, first: float = 0.0, gap: float = GAP, orientation: Sequence[float] = AXIAL) -> np.ndarray:
    """Positions of evenly spaced slices along the normal of an orientation, (count, 3) in mm."""
    normal = np.cross(orientation[:3], orientation[3:])
    return np.array(ORIGIN) + (first + gap * np.arange(count))[:, None] * normal


def write_slices(
    folder: Path,
    edit: Edit | None = None,
    *,
    hu: np.ndarray | None = None,
    positions: np.ndarray | None = None,
    orientation: Sequence[float] = AXIAL,
    rescale: tuple[float, float] = (1, -1024),
    dtype: str = "uint16",
    series: str = "1.2.826.77",
    modality: str = "CT",
    sop_class: str = CTImageStorage,
    name: str = "I{:04d}.dcm",
) -> list[Path]:
    """Write a series, one file a slice; ``edit(dataset, index)`` may change each.

    Args:
        folder: is made where it is absent.
        edit: see above.
        hu: (X, Y, Z) values after rescaling.
        positions: (Z, 3) in LPS mm.
        orientation: direction of a row, then of a column.
        rescale: slope and intercept.
        dtype: of the stored values.
        series: SeriesInstanceUID.
        modality: Modality.
        sop_class: SOP class UID.
        name: of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = body() if hu is None else hu
    places = stack(values.shape[2], orientation=orientation) if positions is None else positions
    stored = np.round((values - rescale[1]) / rescale[0]).astype(dtype).transpose(2, 1, 0)
    files = []
    for index, plane in enumerate(stored):
        dataset = new_object(sop_class, modality, series)
        dataset.InstanceNumber = index + 1
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *plane.shape, 1
        dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", int(stored.dtype.kind == "i")
        dataset.BitsAllocated = dataset.BitsStored = 8 * stored.dtype.itemsize
        dataset.HighBit = dataset.BitsStored - 1
        dataset.RescaleSlope, dataset.RescaleIntercept = rescale
        dataset.ImagePositionPatient = [float(f"{value:.6f}") for value in places[index]]
        dataset.ImageOrientationPatient = [float(f"{value:.9f}") for value in orientation]
        dataset.PixelSpacing, dataset.SliceThickness = list(SPACING), GAP
        dataset.PixelData = plane.tobytes()
        dataset["PixelData"].VR = "OW"
        if edit is not None:
            edit(dataset, index)
        files.append(folder / name.format(index))
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def case(
    path: Path,
    hu: np.ndarray | None = None,
    positions: np.ndarray | None = None,
    orientation: Sequence[float] = AXIAL,
    slices: Sequence[Path] | None = None,
) -> Case:
    """Return a folder and the volume it stands for: its ends lie where the first and the last slice do."""
    values = body() if hu is None else hu
    places = stack(values.shape[2], orientation=orientation) if positions is None else positions
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    affine = np.eye(4)
    step: Any = (places[-1] - places[0]) / (len(places) - 1)
    affine[:3] = np.stack([row * SPACING[1], column * SPACING[0], step, places[0]], axis=1)
    affine[:2] *= -1  # LPS to RAS
    return Case(path, Truth(values, affine), slices)
