# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Synthetic DICOM series, written with pydicom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROWS, COLUMNS, SLICES = 12, 16, 8
SPACING = (0.7, 0.5)  # between rows, between columns
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ORIGIN = (-10.0, -20.0, 30.0)


def stack_positions(orientation=AXIAL, gaps=(2.0,) * (SLICES - 1)) -> np.ndarray:
    """Positions along the normal of ``orientation``, separated by the gaps."""
    normal = np.cross(orientation[:3], orientation[3:])
    return np.array(ORIGIN) + np.concatenate([[0.0], np.cumsum(gaps)])[:, None] * normal


@pytest.fixture
def write_series() -> Callable[..., Any]:
    """Return a function that writes a series into a folder; names and instance numbers are not in slice order.

    ``edit(dataset, index)`` may change the dataset of each slice. The result has the stored values (slice, row, column)
    and the files, both in the order of ``positions``.
    """
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def write(
        folder: Path,
        edit: Callable[[Any, int], None] | None = None,
        *,
        orientation=AXIAL,
        positions=None,
        stored: np.ndarray | None = None,
        series_uid: str = "1.2.826.77",
        seed: int = 0,
    ) -> SimpleNamespace:
        folder.mkdir(exist_ok=True)
        positions = stack_positions(orientation) if positions is None else positions
        rng = np.random.default_rng(seed)
        if stored is None:
            stored = rng.integers(0, 4096, (len(positions), ROWS, COLUMNS)).astype(np.uint16)
        numbers = rng.permutation(len(positions))
        files = []
        for index, position in enumerate(positions):
            dataset = pydicom.Dataset()
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix="1.2.826.78.")
            dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series_uid, "1.2.826.76"
            dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "DOE^JANE", "ID4711", "19700101"
            dataset.Modality = "CT"
            dataset.InstanceNumber = int(numbers[index]) + 1
            dataset.Rows, dataset.Columns = stored.shape[1:]
            dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "MONOCHROME2", 1
            dataset.BitsAllocated = dataset.BitsStored = 8 * stored.dtype.itemsize
            dataset.HighBit = dataset.BitsStored - 1
            dataset.PixelRepresentation = int(stored.dtype.kind == "i")
            dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
            dataset.ImagePositionPatient = [float(f"{i:.6f}") for i in position]
            dataset.ImageOrientationPatient = [float(f"{i:.9f}") for i in orientation]
            dataset.PixelSpacing, dataset.SliceThickness = list(SPACING), 2.0
            dataset.PixelData = stored[index].tobytes()
            if edit is not None:
                edit(dataset, index)
            files.append(folder / f"{series_uid[-2:]}_{numbers[index]:03d}.dcm")
            # pydicom 2, which MONAI Label needs, requires these in addition to the transfer syntax
            dataset.is_little_endian, dataset.is_implicit_VR = True, False
            dataset.save_as(files[-1], write_like_original=False)
        return SimpleNamespace(stored=stored, files=files, positions=np.asarray(positions))

    return write
