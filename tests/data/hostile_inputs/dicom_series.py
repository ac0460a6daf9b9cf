# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""DICOM series that hold several volumes, and such that only look so."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from hostile_inputs.case import Case, Registry, body, refused, right
from hostile_inputs.dicom_base import Edit, case, stack, write_slices
from hostile_inputs.dicom_pixels import fields
from monai_medpruner.errors import MixedSeriesError, SliceGeometryError

__all__ = ["INPUTS"]

registry = Registry("DICOM")
INPUTS = registry.inputs


def two(folder: Path, first: float, *edits: Edit, gap: float = 2.5, mr: bool = False) -> Case:
    """Write two volumes under one SeriesInstanceUID, the second of which begins ``first`` mm above the other."""
    for number, edit in enumerate(edits):
        write_slices(
            folder,
            edit,
            hu=body(seed=number) + (1000 if mr else 0),
            rescale=(1, 0 if mr else -1024),
            positions=stack(8, number * first, gap),
            name=f"P{number}_{{:04d}}.dcm",
            modality="MR" if mr else "CT",
            **({"sop_class": MRImageStorage} if mr else {}),
        )
    return Case(folder)


@registry.add(
    "two passes in one series, before and after contrast, half a gap apart", refused(MixedSeriesError, "2 vol")
)
def dicom_two_passes(folder: Path) -> Case:
    return two(folder, 1.25, fields(AcquisitionNumber=1), fields(AcquisitionNumber=2, ContrastBolusAgent="C"))


@registry.add("two passes whose ranges overlap at their ends", refused(MixedSeriesError, "AcquisitionNumber"))
def dicom_overlapping_passes(folder: Path) -> Case:
    return two(folder, 16.3, fields(AcquisitionNumber=1), fields(AcquisitionNumber=2))


@registry.add("two passes 0.1 mm apart", refused(MixedSeriesError, "AcquisitionNumber"))
def dicom_near_passes(folder: Path) -> Case:
    return two(folder, 0.1, fields(AcquisitionNumber=1), fields(AcquisitionNumber=2))


@registry.add("two echoes of MR in one series", refused(MixedSeriesError, "EchoTime"))
def dicom_echoes(folder: Path) -> Case:
    return two(folder, 0.0, fields(EchoTime=10), fields(EchoTime=80), mr=True)


@registry.add("two b-values of MR in one series", refused(MixedSeriesError, "DiffusionBValue"))
def dicom_b_values(folder: Path) -> Case:
    return two(folder, 0.0, fields(DiffusionBValue=0.0), fields(DiffusionBValue=1000.0), mr=True)


@registry.add("two cardiac phases in one series", refused(MixedSeriesError, "TriggerTime"))
def dicom_phases(folder: Path) -> Case:
    return two(folder, 0.0, fields(TriggerTime=0), fields(TriggerTime=400))


@registry.add("two reconstructions in one series", refused(MixedSeriesError, "ConvolutionKernel"))
def dicom_kernels(folder: Path) -> Case:
    return two(folder, 1.25, fields(ConvolutionKernel="B20f"), fields(ConvolutionKernel="B70f"))


@registry.add("one volume scanned in two steps, one above the other", right())
def dicom_steps(folder: Path) -> Case:
    def step(dataset: Dataset, index: int) -> None:
        dataset.AcquisitionNumber = 1 + index // 4

    write_slices(folder, step)
    return case(folder)


@registry.add("two series in one folder", refused(MixedSeriesError, "2 DICOM series"))
def dicom_two_series(folder: Path) -> Case:
    write_slices(folder)
    write_slices(folder, hu=body(seed=1), series="1.2.826.79", name="J{:04d}.dcm")
    return Case(folder)


@registry.add("a localizer in the series that does not say so", refused(SliceGeometryError, "(a localizer?)"))
def dicom_hidden_localizer(folder: Path) -> Case:
    write_slices(folder)
    coronal = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    write_slices(folder, hu=body(seed=1)[..., :1], orientation=coronal, name="L{:04d}.dcm")
    return Case(folder)
