# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Ask many questions about many volumes in one process, and watch memory, open files and child processes.

``python benchmarks/soak.py`` asks 1,000 questions about 50 volumes, half of them DICOM series, with the tiny model, and
fails if resident memory after the warm-up grows by more than 5 %, or a file or a child process other than a DICOM
decoder is left. Every ninth volume is damaged, so that errors are part of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import nibabel as nib
import numpy as np
import psutil

from monai_medpruner.bundles import open_bundle
from monai_medpruner.errors import own_error
from monai_medpruner.settings import bundle_folders

LIMIT = 0.05  # growth of resident memory
WARM_UP = 0.2  # of the volumes


@dataclass(frozen=True)
class Usage:
    """What the process holds after a volume.

    Args:
        volume: its number, from 0.
        resident_mb: resident memory of this process in 10**6 bytes.
        files: open file descriptors.
        children: child processes that are not DICOM decoders.
        decoders: DICOM decoders.
    """

    volume: int
    resident_mb: float
    files: int
    children: int
    decoders: int


def usage(volume: int) -> Usage:
    """Return what this process holds now."""
    process = psutil.Process()
    commands = [" ".join(one.cmdline()) for one in process.children(recursive=True)]
    decoders = sum("dicom_decoder" in one for one in commands)
    files = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
    return Usage(volume, process.memory_info().rss / 1e6, files, len(commands) - decoders, decoders)


def write_volume(folder: Path, number: int) -> Path:
    """Write a volume of 24 slices: NIfTI or, each second one, DICOM; each ninth is damaged."""
    voxels = np.random.default_rng(number).integers(-150, 250, (96, 96, 24), dtype=np.int16)
    voxels[:4] = -1000
    if number % 2 == 0:
        path = folder / f"{number}.nii.gz"
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 3.0, 1.0])), path)
        if number % 9 == 8:
            path.write_bytes(path.read_bytes()[:-5000])
        return path
    path = folder / str(number)
    path.mkdir()
    for index in range(voxels.shape[2]):
        _write_slice(path / f"{index}.dcm", voxels[..., index].T, number, index)
    if number % 9 == 8:
        (path / "3.dcm").write_bytes((path / "3.dcm").read_bytes()[:-5000])
    return path


def _write_slice(path: Path, pixels: np.ndarray, number: int, index: int) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{number + 1}.{index + 1}"
    data.SeriesInstanceUID, data.Modality = f"1.2.826.0.1.{number + 1}", "CT"
    data.Rows, data.Columns, data.SamplesPerPixel = *pixels.shape, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 1
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 3 * index], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.SliceThickness = [1, 1], 3
    data.PixelData = np.ascontiguousarray(pixels).tobytes()
    data["PixelData"].VR = "OW"
    data.save_as(path, enforce_file_format=True)


def soak(volumes: int, questions: int, folder: Path) -> Iterator[Usage]:
    """Ask about one volume after another, and yield what the process holds after each.

    Args:
        volumes: number of volumes; each is asked about again in a second round, from the same files.
        questions: number of questions in all.
        folder: for the volumes.
    """
    paths = [write_volume(folder, number) for number in range(volumes)]
    workflow = open_bundle(bundle_folders()["medpruner_qwen3vl"], {"model_id": "tiny", "max_new_tokens": 4})
    network, preprocessing = workflow.network_def, workflow.parser.get_parsed_content("preprocessing")
    readable = sum(number % 9 != 8 for number in range(volumes))
    each = -(-questions // (2 * readable))
    for number in range(2 * volumes):
        try:
            study = network.encode(preprocessing({"image": str(paths[number % volumes])})["image"])
        except Exception as error:
            if own_error(error) is None or number % volumes % 9 != 8:
                raise
        else:
            for question in range(each):
                network.answer(study, f"Is there a lesion, {question}?")
        yield usage(number)


def verdict(held: list[Usage]) -> dict[str, float | bool]:
    """Return the growth of memory, files and children after the warm-up, and whether it is within the limits."""
    warm = held[int(len(held) * WARM_UP) :]
    third = max(1, len(warm) // 3)
    first, last = (float(np.median([one.resident_mb for one in part])) for part in (warm[:third], warm[-third:]))
    growth = last / first - 1
    files = warm[-1].files - warm[0].files
    children, decoders = (max(getattr(one, name) for one in warm) for name in ("children", "decoders"))
    within = growth <= LIMIT and files <= 0 and children == 0 and decoders <= 2
    figures = {"resident_mb_first": round(first, 1), "resident_mb_last": round(last, 1), "growth": round(growth, 4)}
    return {**figures, "files": files, "children": children, "decoders": decoders, "within_limits": within}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=50)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--output", type=Path, help="JSON file for what was held after each volume")
    options = parser.parse_args()
    start = perf_counter()
    held = []
    with tempfile.TemporaryDirectory() as folder:
        for one in soak(options.volumes, options.questions, Path(folder)):
            held.append(one)
            if one.volume % 10 == 0:
                print(one, file=sys.stderr, flush=True)
    result = {"volumes": options.volumes, "questions": options.questions, **verdict(held)}
    result["seconds"] = round(perf_counter() - start)
    print(json.dumps(result, indent=2))
    if options.output is not None:
        options.output.write_text(json.dumps({**result, "held": [asdict(one) for one in held]}) + "\n")
    return 0 if result["within_limits"] else 1


if __name__ == "__main__":
    sys.exit(main())
