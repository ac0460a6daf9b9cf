# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""DICOM files with any bit layout, and files that end the decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def bit_layout_file(
    path: Path, allocated: int, stored: int, high: int, signed: bool, photometric: str, seed: int = 0
) -> np.ndarray:
    """Write a slice whose words are random in all bits; return its stored values by DICOM's definition (6, 8)."""
    words = np.random.default_rng(seed).integers(0, 2 ** min(allocated, 63), 48, dtype=np.uint64)
    values = [int(word) >> (high + 1 - stored) & (2**stored - 1) for word in words]
    if signed:
        values = [value - 2**stored if value >> (stored - 1) else value for value in values]
    if allocated == 1:
        content = np.packbits(words.astype(np.uint8), bitorder="little").tobytes()
    else:
        content = b"".join(int(word).to_bytes(allocated // 8, "little") for word in words)

    def edit(dataset: Any) -> None:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, high
        dataset.PixelRepresentation, dataset.PhotometricInterpretation = int(signed), photometric
        dataset.PixelData = content + bytes(len(content) % 2)
        dataset["PixelData"].VR = "OB" if allocated <= 8 else "OW"

    write_slice(path, edit)
    return np.array(values, dtype=np.float64).reshape(6, 8)


def write_slice(path: Path, edit: Any = None, z: float = 0.0) -> None:
    """Write a CT slice of 6 x 8 pixels whose stored values are the even numbers from 0."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID, dataset.Modality = "1.2.826.77", "CT"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 6, 8, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 1
    dataset.PixelData = np.arange(0, 96, 2, dtype=np.uint16).tobytes()
    dataset["PixelData"].VR = "OW"
    if edit is not None:
        edit(dataset)
    # pydicom 2, which MONAI Label needs, requires these in addition to the transfer syntax
    dataset.is_little_endian, dataset.is_implicit_VR = True, dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    dataset.save_as(path, write_like_original=False)


def palette_without_tables(dataset: Any) -> None:
    """Make GDCM throw an exception that aborts its process."""
    dataset.PhotometricInterpretation = "PALETTE COLOR"
