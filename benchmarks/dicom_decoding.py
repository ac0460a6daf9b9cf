# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Time reading a DICOM series in a process of its own against reading it in this process.

The series is written to a temporary folder. Runs alternate between the two after a warm-up of each; the result is the
difference and the ratio of the medians, and the smallest difference of a pair of runs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from monai_medpruner.data import VolumeReader
from monai_medpruner.data.dicom_decoding import DicomDecoding


def write_series(folder: Path, slices: int, side: int) -> None:
    """Write a series of int16 slices with random stored values."""
    rng = np.random.default_rng(0)
    for index in range(slices):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.SeriesInstanceUID, dataset.Modality = "1.2.826.77", "CT"
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = side, side, 1
        dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, index], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [0.7, 0.7], 1
        dataset.PixelData = rng.integers(0, 4096, (side, side)).astype(np.int16).tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.save_as(folder / f"{index:04d}.dcm", enforce_file_format=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--side", type=int, default=512, help="rows and columns of a slice")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    readers = {name: VolumeReader(decoding=DicomDecoding(separate=name == "separate")) for name in ("separate", "here")}
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    with tempfile.TemporaryDirectory() as folder:
        write_series(Path(folder), arguments.slices, arguments.side)
        volumes = {}
        for repeat in range(arguments.repeats + 1):
            for name, reader in readers.items():
                volumes.clear()
                start = perf_counter()
                volumes[name] = reader.read(folder).voxels
                total = float(volumes[name].sum())  # every page was written
                if repeat:  # the first run starts the process and loads ITK
                    seconds[name].append(perf_counter() - start)
                print(f"{name}: {perf_counter() - start:.2f} s, sum {total:.6g}")
    separate, here = median(seconds["separate"]), median(seconds["here"])
    least = min(one - other for one, other in zip(seconds["separate"], seconds["here"], strict=True))
    print(f"separate {separate:.2f} s, here {here:.2f} s: {separate - here:+.2f} s ({least:+.2f} s at least)")
    print(f"ratio {separate / here:.2f}")


if __name__ == "__main__":
    main()
