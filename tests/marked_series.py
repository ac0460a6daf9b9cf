# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A DICOM series in which every text field holds a marker."""

from __future__ import annotations

import numpy as np

MARKER = "ZQXMARKER"
TEXT_REPRESENTATIONS = {"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}
#: text fields that the reader itself needs
NEEDED = {"Modality", "PhotometricInterpretation", "ImageType"}


def write_marked_series(folder, edit=None, count=4):
    """Write a CT series in which every text field of its kind of object, and a private one, holds the marker."""
    from pydicom.datadict import DicomDictionary
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True)
    groups = (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040)
    texts = {
        tag: representation
        for tag, (representation, multiplicity, _, retired, name) in DicomDictionary.items()
        if tag >> 16 in groups and representation in TEXT_REPRESENTATIONS and not retired and name not in NEEDED
    }
    assert len(texts) > 200
    series, random = generate_uid(), np.random.default_rng(0)
    for index in range(count):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        for tag, representation in texts.items():
            dataset.add_new(tag, representation, MARKER)
        dataset.add_new(0x00091001, "LO", MARKER)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.SeriesInstanceUID, dataset.Modality = series, "CT"
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 64, 64, 1
        dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 5 * index], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 5
        dataset.PixelData = random.integers(0, 2000, (64, 64), dtype=np.uint16).tobytes()
        dataset["PixelData"].VR = "OW"
        if edit is not None:
            edit(dataset, index)
        dataset.is_little_endian, dataset.is_implicit_VR = True, False
        dataset.save_as(folder / f"{index}.dcm", write_like_original=False)
    return folder
