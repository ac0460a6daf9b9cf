# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""DICOM objects of several frames, rescaling that differs, units other than HU, and media directories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, MRImageStorage

from hostile_inputs.case import Case, Registry, body, noted, refused, right
from hostile_inputs.dicom_base import AXIAL, GAP, SPACING, case, new_object, stack, write_slices
from hostile_inputs.dicom_pixels import fields, fifth
from monai_medpruner.errors import IntensityUnitsError

__all__ = ["INPUTS"]

registry = Registry("DICOM")
INPUTS = registry.inputs


def item(**values: object) -> Dataset:
    """Return a dataset with some fields."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@registry.add("enhanced CT: all slices in one file", right())
def dicom_enhanced(folder: Path) -> Case:
    stored = (body().astype(np.int32) + 1024).astype(np.uint16).transpose(2, 1, 0)
    dataset = new_object(EnhancedCTImageStorage, "CT", "1.2.826.77")
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    measures = item(PixelSpacing=list(SPACING), SliceThickness=GAP)
    rescale = item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")
    orientation = item(ImageOrientationPatient=list(AXIAL))
    dataset.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[measures],
            PixelValueTransformationSequence=[rescale],
            PlaneOrientationSequence=[orientation],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=list(place))]) for place in stack(8)
    ]
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(folder / "I0000.dcm", enforce_file_format=True)
    return case(folder)


@registry.add("one slice stored with another rescale slope and intercept", noted("slope and intercept differ"))
def dicom_one_rescale(folder: Path) -> Case:
    def change(dataset: Dataset, _: int) -> None:
        stored = np.frombuffer(dataset.PixelData, np.uint16).astype(np.int32) - 1024
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5, -2048
        dataset.PixelData = (2 * (stored + 2048)).astype(np.uint16).tobytes()

    write_slices(folder, fifth(change))
    return case(folder)


@registry.add(
    "one slice whose header lacks the others' rescale intercept", refused(IntensityUnitsError, "rescaled alike")
)
def dicom_one_intercept(folder: Path) -> Case:
    rng = np.random.default_rng(3)
    smooth = np.broadcast_to(rng.integers(-800, 800, (16, 12, 1)), body().shape) + rng.integers(-20, 20, body().shape)

    def change(dataset: Dataset, _: int) -> None:
        dataset.RescaleIntercept = 0

    write_slices(folder, fifth(change), hu=smooth.astype(np.int16))
    return Case(folder)


@registry.add(
    "CT whose rescaled values are optical densities (`RescaleType` OD)",
    refused(IntensityUnitsError, "optical densities, not Hounsfield units"),
)
def dicom_rescale_type(folder: Path) -> Case:
    write_slices(folder, fields(RescaleType="OD"))
    return case(folder)


@registry.add("MR phase, -4096 to 4095", noted("phase of the signal"))
def dicom_mr_phase(folder: Path) -> Case:
    signal = body() // 2 * 2
    write_slices(
        folder,
        fields(ImageType=["ORIGINAL", "PRIMARY", "P", "ND"]),
        hu=signal,
        rescale=(2, -4096),
        modality="MR",
        sop_class=MRImageStorage,
    )
    return case(folder, signal)


@registry.add("the path of a CD's DICOMDIR", noted("media directory (1)"))
def dicom_dicomdir(folder: Path) -> Case:
    slices = write_slices(folder / "DICOM" / "S0000", name="I{:04d}")
    new_object("1.2.840.10008.1.3.10", "", "1.2.826.80").save_as(folder / "DICOMDIR", enforce_file_format=True)
    return Case(folder / "DICOMDIR", case(folder).truth, slices)
