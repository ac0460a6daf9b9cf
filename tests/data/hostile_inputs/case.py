# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What an input of the table of reliability is, and when two volumes are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

__all__ = ["Case", "Expected", "HostileInput", "Registry", "Truth", "body", "noted", "refused", "right", "same"]

SHAPE = (16, 12, 8)
_VOXEL_TOLERANCE = 1e-3
_CORNER_TOLERANCE_MM = 0.02


@dataclass(frozen=True)
class Truth:
    """A volume: voxels (X, Y, Z), affine (4, 4) in RAS mm."""

    voxels: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Case:
    """What a generator wrote.

    Attributes:
        path: file or folder to read.
        truth: the volume that a reader ought to return, as the generator made it; None where there is none, so that
            only an error is right.
        slices: of a DICOM series, the files that make up the volume; None for all files of the folder.
    """

    path: Path
    truth: Truth | None = None
    slices: Sequence[Path] | None = None


@dataclass(frozen=True)
class Expected:
    """What this package has to do: ``"right"``, ``"noted"`` (right, with a note) or ``"refused"``.

    Attributes:
        outcome: see above.
        error: name of the error's type, where refused.
        phrase: part of the note, or of the error's message.
    """

    outcome: str
    error: str = ""
    phrase: str = ""


def right() -> Expected:
    """The volume is right, without a note."""
    return Expected("right")


def noted(phrase: str) -> Expected:
    """The volume is right, and a note has the phrase."""
    return Expected("noted", phrase=phrase)


def refused(error: type[Exception], phrase: str) -> Expected:
    """An error of the type is raised, whose message has the phrase."""
    return Expected("refused", error.__name__, phrase)


@dataclass(frozen=True)
class HostileInput:
    """A row of the table.

    Attributes:
        name: of the generator.
        format: "NIfTI" or "DICOM".
        text: what the input is, in one phrase.
        expected: what this package has to do.
        make: writes the input into an empty folder.
        modality: as :class:`monai_medpruner.transforms.IntensityWindows` takes it.
        other_oracle: why nibabel or pydicom do not read the input as it is meant; empty where they do.
    """

    name: str
    format: str
    text: str
    expected: Expected
    make: Callable[[Path], Case]
    modality: str
    other_oracle: str = ""


@dataclass
class Registry:
    """Decorators that list the generators of a module."""

    format: str
    modality: str = "auto"
    inputs: list[HostileInput] = field(default_factory=list)

    def add(
        self, text: str, expected: Expected, *, modality: str | None = None, other_oracle: str = ""
    ) -> Callable[[Callable[[Path], Case]], Callable[[Path], Case]]:
        """Return a decorator that registers a generator."""

        def register(make: Callable[[Path], Case]) -> Callable[[Path], Case]:
            one = HostileInput(
                make.__name__, self.format, text, expected, make, modality or self.modality, other_oracle
            )
            self.inputs.append(one)
            return make

        return register


def body(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Random HU from air to bone, (X, Y, Z) int16: no two slices, rows or columns are alike."""
    return np.random.default_rng(seed).integers(-1000, 1200, shape).astype(np.int16)


def same(first: Truth, second: Truth) -> bool:
    """Whether two volumes have the same voxels at the same places, whatever the order of their axes."""
    one, other = _canonical(first), _canonical(second)
    if one.voxels.shape != other.voxels.shape:
        return False
    if not np.allclose(one.voxels, other.voxels, rtol=1e-5, atol=_VOXEL_TOLERANCE, equal_nan=True):
        return False
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in one.voxels.shape[:3]], indexing="ij"), -1).reshape(-1, 3)
    apart = corners @ (one.affine - other.affine)[:3, :3].T + (one.affine - other.affine)[:3, 3]
    return bool(np.linalg.norm(apart, axis=1).max() <= _CORNER_TOLERANCE_MM)


def _canonical(volume: Truth) -> Truth:
    """The volume with its axes nearest to right, anterior, superior."""
    voxels = np.asarray(volume.voxels)
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    voxels = voxels.reshape(*voxels.shape, *[1] * (3 - voxels.ndim)) if voxels.ndim < 3 else voxels
    affine = np.asarray(volume.affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        return Truth(voxels, affine)
    orientation = nib.io_orientation(affine)
    if np.isnan(orientation).any():
        return Truth(voxels, affine)
    moved = nib.apply_orientation(voxels, orientation)
    return Truth(moved, affine @ nib.orientations.inv_ornt_aff(orientation, voxels.shape[:3]))
