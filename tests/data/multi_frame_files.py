# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Multi-frame DICOM objects with functional groups, written with pydicom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROWS, COLUMNS = 6, 8
SPACING = (0.7, 0.5)  # between rows, between columns
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def functional_group(name: str, **values: Any) -> Callable[[Any], None]:
    """Return a function that adds a macro, a sequence of one item, to a functional group."""

    def add(group: Any) -> None:
        from pydicom.dataset import Dataset
        from pydicom.sequence import Sequence as Items

        item = Dataset()
        for keyword, value in values.items():
            if callable(value):
                value(item)
            else:
                setattr(item, keyword, value)
        setattr(group, name, Items([item]))

    return add


def position(place: Sequence[float]) -> Callable[[Any], None]:
    """Return the macro of a frame's position, LPS mm."""
    return functional_group("PlanePositionSequence", ImagePositionPatient=[float(f"{i:.6f}") for i in place])


def orientation(cosines: Sequence[float]) -> Callable[[Any], None]:
    """Return the macro of the directions of a row and a column."""
    return functional_group("PlaneOrientationSequence", ImageOrientationPatient=list(cosines))


def measures(spacing: Sequence[float] = SPACING, thickness: float = 2.0) -> Callable[[Any], None]:
    """Return the macro of pixel spacing and slice thickness."""
    return functional_group("PixelMeasuresSequence", PixelSpacing=list(spacing), SliceThickness=thickness)


def rescale(slope: float = 1.0, intercept: float = -1024.0, kind: str = "HU") -> Callable[[Any], None]:
    """Return the macro of the rescaling."""
    values = {"RescaleSlope": slope, "RescaleIntercept": intercept, "RescaleType": kind}
    return functional_group("PixelValueTransformationSequence", **values)


def content(**values: Any) -> Callable[[Any], None]:
    """Return the macro of stack, position in it, temporal position, and dimension indices."""
    return functional_group("FrameContentSequence", **values)


def write_frames(
    path: Path,
    frames: Sequence[Sequence[Callable[[Any], None]]],
    shared: Sequence[Callable[[Any], None]] = (),
    *,
    sop_class: str = "EnhancedCTImageStorage",
    modality: str = "CT",
    stored: np.ndarray | None = None,
    syntax: str = "ExplicitVRLittleEndian",
    edit: Callable[[Any], None] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Write an object with the macros of each frame and of all frames; return its stored values, frames first."""
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence as Items

    if stored is None:
        values = np.random.default_rng(seed).integers(0, 4096, (len(frames), ROWS, COLUMNS))
        stored = values.astype(np.uint16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = getattr(uid, syntax)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = getattr(uid, sop_class)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid(prefix="1.2.826.78.")
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.826.77", "1.2.826.76"
    dataset.PatientName, dataset.PatientID, dataset.Modality = "DOE^JANE", "ID4711", modality
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames, (dataset.Rows, dataset.Columns) = len(stored), stored.shape[1:3]
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "MONOCHROME2", 1
    dataset.BitsAllocated = dataset.BitsStored = 8 * stored.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(stored.dtype.kind == "i")
    dataset.SharedFunctionalGroupsSequence = Items([_group(shared)])
    dataset.PerFrameFunctionalGroupsSequence = Items([_group(macros) for macros in frames])
    order = ">" if syntax == "ExplicitVRBigEndian" else "<"
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
    if edit is not None:
        edit(dataset)
    # pydicom 2, which MONAI Label needs, requires these in addition to the transfer syntax
    dataset.is_little_endian, dataset.is_implicit_VR = order == "<", syntax == "ImplicitVRLittleEndian"
    dataset.save_as(path, write_like_original=False)
    return stored


def _group(macros: Sequence[Callable[[Any], None]]) -> Any:
    from pydicom.dataset import Dataset

    group = Dataset()
    for add in macros:
        add(group)
    return group
