# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Read files with other readers, in a process that a file may end: the child of ``reliability_page.py``.

The first line of the output says that the libraries are loaded. Each line of the input is a request in JSON:
``reader``, ``path``, and ``target``, the ``.npz`` file to which voxels and affine are written. Each further line of the
output is its reply: ``error``, the type of the exception, or null, and ``warnings``, how many Python gave.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import monai.data
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own convention
from monai.transforms import LoadImage

MEMORY_GIB = 8


def with_monai(name: str) -> Callable[[Path], tuple[np.ndarray, np.ndarray]]:
    """Return a function that reads by MONAI's LoadImage and one of its readers, which it does not replace."""

    load = LoadImage(image_only=True)  # which warns of an absent decoder each time

    def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
        image = load(path, reader=getattr(monai.data, name)())
        return image.numpy(), of_three_axes(image.affine.numpy())

    return read


def of_three_axes(affine: np.ndarray) -> np.ndarray:
    """Return the affine (4, 4) of the first three axes, of an affine of two or more."""
    axes = min(len(affine) - 1, 3)
    placed = np.eye(4)
    placed[:axes, :axes], placed[:axes, 3] = affine[:axes, :axes], affine[:axes, -1]
    return placed


def with_simpleitk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a file, or a folder as SimpleITK's documentation reads a DICOM series."""
    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(path))
    voxels = sitk.GetArrayFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel() > 1
    axes = [*range(image.GetDimension())[::-1], *([image.GetDimension()] if channels else [])]
    affine = np.eye(4)
    size = min(image.GetDimension(), 3)
    direction = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)[:size, :size]
    affine[:size, :size] = direction * np.array(image.GetSpacing())[:size]
    affine[:size, 3] = np.array(image.GetOrigin())[:size]
    affine[:2] *= -1  # LPS to RAS
    return voxels.transpose(axes), affine


READERS = {name: with_monai(name) for name in ("NibabelReader", "ITKReader", "PydicomReader")} | {
    "SimpleITK": with_simpleitk
}


def answer(request: dict[str, str]) -> dict[str, object]:
    """Read one file and write what was read; return the reply."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        try:
            voxels, affine = READERS[request["reader"]](Path(request["path"]))
            np.savez(request["target"], voxels=voxels, affine=affine)
            error = None
        except Exception as raised:  # whatever a reader raises is its outcome
            error = type(raised).__name__
    known = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)
    return {"error": error, "warnings": sum(not issubclass(one.category, known) for one in given)}


def main() -> None:
    """Answer requests until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_GIB << 30, MEMORY_GIB << 30))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is a word of theirs
    replies.write(json.dumps({"ready": True}) + "\n")
    replies.flush()
    for line in sys.stdin:
        replies.write(json.dumps(answer(json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
