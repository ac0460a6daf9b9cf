# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Writing NIfTI files and changing their bytes."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from hostile_inputs.case import Case, Truth, body

__all__ = ["AFFINE", "case", "compress", "image", "patch", "write"]

#: columns run to the patient's right, rows to the front, slices up
AFFINE = np.array([[-0.8, 0, 0, 30.0], [0, 0.8, 0, -20.0], [0, 0, 5.0, 100.0], [0, 0, 0, 1]])


def image(voxels: np.ndarray | None = None, affine: np.ndarray = AFFINE, kind: Any = nib.Nifti1Image) -> Any:
    """Return an image whose sform alone says where its voxels lie."""
    made = kind(body() if voxels is None else voxels, None)
    made.set_sform(affine, 1)
    made.header.set_zooms([*np.linalg.norm(affine[:3, :3], axis=0), *[1.0] * (len(made.shape) - 3)][: len(made.shape)])
    made.header.set_xyzt_units("mm")
    return made


def write(folder: Path, made: Any, name: str = "v.nii") -> Path:
    """Write an image."""
    nib.save(made, folder / name)
    return folder / name


def patch(path: Path, offset: int, layout: str, *values: Any) -> Path:
    """Change bytes of an uncompressed file: nibabel would not write such a header."""
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, offset, *values)
    path.write_bytes(content)
    return path


def compress(path: Path) -> Path:
    """Write a compressed copy beside a file; return its path."""
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()
    return target


def case(path: Path, voxels: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> Case:
    """Return a file and the volume it stands for."""
    return Case(path, Truth(body() if voxels is None else voxels, affine))
