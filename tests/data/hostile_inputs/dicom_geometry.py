# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""DICOM series whose geometry or units are rare, contradictory or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, PositronEmissionTomographyImageStorage

from hostile_inputs.case import Case, Registry, body, noted, refused, right
from hostile_inputs.dicom_base import case, stack, write_slices
from hostile_inputs.dicom_pixels import fields, fifth
from monai_medpruner.errors import (
    DuplicateSlicesError,
    IncompleteSeriesError,
    IntensityUnitsError,
    SliceGeometryError,
    SpacingError,
    UnreadableVolumeError,
)

__all__ = ["INPUTS"]

registry = Registry("DICOM")
INPUTS = registry.inputs


@registry.add("names and instance numbers are not in the order of slices", right())
def dicom_shuffled(folder: Path) -> Case:
    order = np.random.default_rng(0).permutation(8)
    files = write_slices(folder, lambda dataset, index: setattr(dataset, "InstanceNumber", int(order[index])))
    for index, file in enumerate(files):
        file.rename(folder / f"{order[index]}_IM")
    return case(folder)


@registry.add("oblique, stacked from head to feet", right())
def dicom_oblique(folder: Path) -> Case:
    orientation = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
    write_slices(folder, positions=stack(8, orientation=orientation)[::-1], orientation=orientation)
    return case(folder, body()[..., ::-1], stack(8, orientation=orientation), orientation)


@registry.add("sagittal", right())
def dicom_sagittal(folder: Path) -> Case:
    orientation = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    write_slices(folder, orientation=orientation)
    return case(folder, orientation=orientation)


@registry.add("gantry tilt of 15 degrees", noted("15.0 degrees"))
def dicom_tilted(folder: Path) -> Case:
    positions = stack(8) + np.arange(8)[:, None] * [0, 2.5 * np.tan(np.radians(15)), 0]
    write_slices(folder, positions=positions)
    return case(folder, positions=positions)


@registry.add("a gantry tilt that the positions do not have", noted("the positions are followed"))
def dicom_stated_tilt(folder: Path) -> Case:
    write_slices(folder, fields(GantryDetectorTilt=-12))
    return case(folder)


@registry.add("a slice is missing", noted("1 slice may be missing"))
def dicom_missing_slice(folder: Path) -> Case:
    write_slices(folder)[3].unlink()
    left = [index for index in range(8) if index != 3]
    return case(folder, body()[..., left], stack(8)[left])


@registry.add("uneven gaps", noted("uneven slice gaps"))
def dicom_uneven(folder: Path) -> Case:
    positions = stack(8)
    positions[4:, 2] += 1.1
    write_slices(folder, positions=positions)
    return case(folder, positions=positions)


@registry.add("a copy of a slice under another name", refused(DuplicateSlicesError, "same position"))
def dicom_copy(folder: Path) -> Case:
    file = write_slices(folder)[2]
    (folder / "copy.dcm").write_bytes(file.read_bytes())
    return Case(folder)


@registry.add("one slice has no position", refused(IncompleteSeriesError, "have no position"))
def dicom_no_position(folder: Path) -> Case:
    def remove(dataset: Dataset, _: int) -> None:
        del dataset.ImagePositionPatient

    write_slices(folder, fifth(remove))
    return Case(folder)


@registry.add("no slice has a position, as in screenshots", refused(UnreadableVolumeError, "have no position"))
def dicom_no_positions(folder: Path) -> Case:
    def remove(dataset: Dataset, _: int) -> None:
        del dataset.ImagePositionPatient, dataset.ImageOrientationPatient

    write_slices(folder, remove)
    return Case(folder)


@registry.add("a position is no number", refused(UnreadableVolumeError, "is not a number"))
def dicom_position_text(folder: Path) -> Case:
    for file in write_slices(folder, fields(ImagePositionPatient=[1.25, 2.25, 3.25]))[:1]:
        file.write_bytes(file.read_bytes().replace(b"1.25\\2.25\\3.25", b"here\\2.25\\3.25"))
    return Case(folder)


@registry.add("no pixel spacing", refused(UnreadableVolumeError, "no pixel spacing"))
def dicom_no_spacing(folder: Path) -> Case:
    def remove(dataset: Dataset, _: int) -> None:
        del dataset.PixelSpacing

    write_slices(folder, remove)
    return Case(folder)


@registry.add("a pixel spacing of 0", refused(SpacingError, "PixelSpacing is"))
def dicom_spacing_zero(folder: Path) -> Case:
    write_slices(folder, fields(PixelSpacing=[0, 0.5]))
    return Case(folder)


@registry.add("a negative pixel spacing", refused(SpacingError, "PixelSpacing is"))
def dicom_spacing_negative(folder: Path) -> Case:
    write_slices(folder, fields(PixelSpacing=[-0.7, 0.5]))
    return Case(folder)


@registry.add("directions of rows and columns are not perpendicular", refused(SliceGeometryError, "perpendicular"))
def dicom_orientation(folder: Path) -> Case:
    write_slices(folder, fields(ImageOrientationPatient=[1, 0, 0, 0.5, 0.8, 0]))
    return Case(folder)


@registry.add("one slice has another orientation", refused(SliceGeometryError, "differ from the others"))
def dicom_one_orientation(folder: Path) -> Case:
    write_slices(folder, fifth(fields(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])))
    return Case(folder)


@registry.add("one slice has another pixel spacing", refused(SliceGeometryError, "differ from the others"))
def dicom_one_spacing(folder: Path) -> Case:
    write_slices(folder, fifth(fields(PixelSpacing=[0.9, 0.9])))
    return Case(folder)


@registry.add("one slice has another size", refused(SliceGeometryError, "differ from the others"))
def dicom_one_size(folder: Path) -> Case:
    def halve(dataset: Dataset, _: int) -> None:
        dataset.Rows //= 2
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]

    write_slices(folder, fifth(halve))
    return Case(folder)


@registry.add("CT without rescale slope and intercept", refused(IntensityUnitsError, "which start at 24"))
def dicom_no_rescale(folder: Path) -> Case:
    def remove(dataset: Dataset, _: int) -> None:
        del dataset.RescaleSlope, dataset.RescaleIntercept

    write_slices(folder, remove)
    return case(folder, body() + np.int16(1024))


@registry.add("CT without rescale, its stored values are HU", noted("no rescale slope in 8 of 8 files"))
def dicom_stored_hu(folder: Path) -> Case:
    def remove(dataset: Dataset, _: int) -> None:
        del dataset.RescaleSlope, dataset.RescaleIntercept

    write_slices(folder, remove, dtype="int16", rescale=(1, 0))
    return case(folder)


@registry.add("a rescale slope of 0", refused(UnreadableVolumeError, "RescaleSlope is 0"))
def dicom_slope_zero(folder: Path) -> Case:
    write_slices(folder, fields(RescaleSlope=0))
    return Case(folder)


@registry.add("a rescale slope of 0.5", right())
def dicom_slope_half(folder: Path) -> Case:
    write_slices(folder, rescale=(0.5, -1024))
    return case(folder)


@registry.add("a negative rescale slope", right())
def dicom_slope_negative(folder: Path) -> Case:
    write_slices(folder, rescale=(-1, 1500))
    return case(folder)


@registry.add("MR with a padding of -32768 around a circle", noted("the header's padding"))
def dicom_mr_padding(folder: Path) -> Case:
    x, y = np.mgrid[:16, :12]
    signal = body().astype(np.int32) + 1000
    signal[((x - 7.5) / 7.5) ** 2 + ((y - 5.5) / 5.5) ** 2 > 1] = -32768
    write_slices(
        folder,
        lambda dataset, _: dataset.add_new(0x00280120, "SS", -32768) and None,
        hu=signal,
        rescale=(1, 0),
        dtype="int16",
        modality="MR",
        sop_class=MRImageStorage,
    )
    return case(folder, signal)


@registry.add("CT with a padding of -2000 that the header does not state", right())
def dicom_ct_padding(folder: Path) -> Case:
    x, y = np.mgrid[:16, :12]
    hu = body()
    hu[((x - 7.5) / 7.5) ** 2 + ((y - 5.5) / 5.5) ** 2 > 1] = -2000
    write_slices(folder, hu=hu, rescale=(1, 0), dtype="int16")
    return case(folder, hu)


@registry.add("PET, whose units are neither HU nor arbitrary", refused(IntensityUnitsError, "modality is PT"))
def dicom_pet(folder: Path) -> Case:
    write_slices(
        folder,
        hu=body() + np.int16(1000),
        rescale=(1, 0),
        modality="PT",
        sop_class=PositronEmissionTomographyImageStorage,
    )
    return case(folder, body() + np.int16(1000))
