# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A head of ellipsoids with skull, brain and ventricles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from monai_medpruner.errors import SettingsError

__all__ = [
    "HEAD_HU",
    "HEAD_LABELS",
    "Blob",
    "Head",
    "HeadGrid",
    "dilated",
    "draw_head",
    "paint_head",
]

#: label of each part in the organ mask; 0 is air, head rest and markers
HEAD_LABELS: dict[str, int] = {"scalp": 1, "skull": 2, "brain": 3, "ventricles": 4}
#: HU of each part
HEAD_HU: dict[str, float] = {"air": -1000.0, "scalp": 10.0, "skull": 900.0, "brain": 35.0, "ventricles": 6.0}

# semi-axes in mm of the outer surfaces, at scale 1: x to the right, y to the front, z upward
_SEMI_AXES = {"scalp": (82.0, 95.0, 95.0), "skull": (80.0, 93.0, 93.0), "brain": (76.5, 89.5, 89.5)}
_VENTRICLES = (((11.0, 4.0, 4.0), (4.0, 24.0, 11.0)), ((-11.0, 4.0, 4.0), (4.0, 24.0, 11.0)))
_SUBSLICES = (-1 / 3, 0.0, 1 / 3)  # of a slice's thickness, over which partial volumes are averaged


@dataclass(frozen=True)
class Blob:
    """An ellipsoid.

    Attributes:
        center: (3,) world position in mm.
        semi_axes: (3,) in mm.
        axes: (3, 3), the directions of the semi-axes as columns.
    """

    center: np.ndarray
    semi_axes: np.ndarray
    axes: np.ndarray


@dataclass(frozen=True)
class Head:
    """Position and parts of a head.

    Attributes:
        center: (3,) world position of its middle in mm.
        axes: (3, 3), directions of right, front and up as columns.
        parts: name of :data:`HEAD_LABELS` and ellipsoid, outermost first.
    """

    center: np.ndarray
    axes: np.ndarray
    parts: tuple[tuple[str, Blob], ...]


class HeadGrid:
    """Axial slices of a head.

    Args:
        size: width and height of a slice in pixels.
        depth: number of slices.
        pixel_mm: side of a pixel in mm.
        step_mm: distance of two slices in mm; negative if the first slice is the highest.
        middle: (3,) world position of the middle of the scan in mm.
    """

    def __init__(self, size: int, depth: int, pixel_mm: float, step_mm: float, middle: np.ndarray) -> None:
        self.pixel_mm, self.thickness_mm = pixel_mm, abs(step_mm)
        steps = np.array([-pixel_mm, -pixel_mm, step_mm])
        self.shape = (size, size, depth)
        start = np.round(middle - steps * (np.array(self.shape) - 1) / 2, 3)
        self.affine = np.diag([*steps, 1.0])
        self.affine[:3, 3] = start
        self.coordinates = [
            first + step * np.arange(number) for first, step, number in zip(start, steps, self.shape, strict=True)
        ]
        self.head: Head | None = None

    def world(self, index: Sequence[int | np.signedinteger]) -> np.ndarray:
        """Return the world position (3,) of a voxel in mm."""
        return np.array([axis[place] for axis, place in zip(self.coordinates, index, strict=True)])

    def radii(self, blob: Blob, shift_mm: float = 0.0) -> np.ndarray:
        """Return each voxel's distance from a blob's center in units of the blob's radius in that direction, float32.

        Args:
            blob: the ellipsoid.
            shift_mm: shift of the voxels along the slice axis in mm.
        """
        offsets = [
            (axis - middle).astype(np.float32) for axis, middle in zip(self.coordinates, blob.center, strict=True)
        ]
        offsets[2] = offsets[2] + np.float32(shift_mm)
        x, y, z = np.ix_(*offsets)
        total = np.zeros(self.shape, dtype=np.float32)
        for direction, half in zip(blob.axes.T.astype(np.float32), blob.semi_axes, strict=True):
            total += ((direction[0] * x + direction[1] * y + direction[2] * z) / np.float32(half)) ** 2
        return np.sqrt(total)

    def inside(self, blob: Blob) -> np.ndarray:
        """Return the mask of the voxels whose centers lie in a blob."""
        mask = np.zeros(self.shape, dtype=bool)
        box, part = self._part(blob, 0.0)
        if part is not None:
            mask[box] = part.radii(blob) <= 1
        return mask

    def fraction(self, blob: Blob) -> np.ndarray:
        """Return the share of each voxel that lies in a blob, float32: edges are soft over one pixel and one slice."""
        share = np.zeros(self.shape, dtype=np.float32)
        box, part = self._part(blob, self.thickness_mm + self.pixel_mm)
        if part is not None:
            mean = float(np.cbrt(np.prod(blob.semi_axes)))
            for shift in _SUBSLICES:
                depth = (1 - part.radii(blob, shift * self.thickness_mm)) * mean / self.pixel_mm
                share[box] += np.clip(0.5 + depth, 0, 1) / len(_SUBSLICES)
        return share

    def leaves(self, blob: Blob) -> bool:
        """Whether a blob's bounding box extends beyond the slices."""
        reach = np.sqrt(((blob.axes * blob.semi_axes) ** 2).sum(1))
        return any(
            middle - half < axis.min() or middle + half > axis.max()
            for axis, middle, half in zip(self.coordinates, blob.center, reach, strict=True)
        )

    def local_coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each voxel's position to the right and to the front of the middle of the head in mm."""
        return self._local

    def depth_in_brain(self) -> np.ndarray:
        """Return each voxel's depth below the surface of the brain in mm, to first order; negative outside."""
        return self._depth

    @cached_property
    def _local(self) -> tuple[np.ndarray, np.ndarray]:
        head = self.known_head()
        x, y, z = np.ix_(*(axis - middle for axis, middle in zip(self.coordinates, head.center, strict=True)))
        right, front = (head.axes[0, i] * x + head.axes[1, i] * y + head.axes[2, i] * z for i in (0, 1))
        return right, front

    @cached_property
    def _depth(self) -> np.ndarray:
        blob = dict(self.known_head().parts)["brain"]
        scaled = []
        for direction, half in zip(blob.axes.T, blob.semi_axes, strict=True):
            offsets = np.ix_(*(axis - middle for axis, middle in zip(self.coordinates, blob.center, strict=True)))
            scaled.append((sum(d * o for d, o in zip(direction, offsets, strict=True)), half))
        radius = np.sqrt(sum((offset / half) ** 2 for offset, half in scaled))
        slope = np.sqrt(sum((offset / half**2) ** 2 for offset, half in scaled)) / np.maximum(radius, 1e-6)
        return (1 - radius) / np.maximum(slope, 1e-6)

    def known_head(self) -> Head:
        """Return the head that was painted on this grid."""
        if self.head is None:
            raise SettingsError("this grid has no head yet; call paint_head first")
        return self.head

    def _part(self, blob: Blob, margin: float) -> tuple[tuple[slice, ...], HeadGrid | None]:
        """Return the bounding box of a blob, and the grid of it; None if it lies outside."""
        reach = np.sqrt(((blob.axes * blob.semi_axes) ** 2).sum(1)) + margin
        box, axes = [], []
        for axis, middle, half in zip(self.coordinates, blob.center, reach, strict=True):
            near = np.flatnonzero(np.abs(axis - middle) <= half)
            if not len(near):
                return (), None
            box.append(slice(near[0], near[-1] + 1))
            axes.append(axis[box[-1]])
        part = object.__new__(HeadGrid)
        part.coordinates, part.shape = axes, tuple(len(axis) for axis in axes)  # type: ignore[assignment]
        return tuple(box), part


def draw_head(generator: np.random.Generator, scale: tuple[float, float], rotation_degrees: float) -> Head:
    """Sample size, position and rotation of a head."""
    angle = np.radians(generator.uniform(-rotation_degrees, rotation_degrees))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    center = generator.uniform([-3, 0, -4], [3, 5, 4])
    size = float(generator.uniform(*scale))
    shape = size * generator.uniform(0.97, 1.03, 3)
    parts = [(name, Blob(center, shape * np.array(half), turn)) for name, half in _SEMI_AXES.items()]
    for place, half in _VENTRICLES:
        middle = center + turn @ (shape * np.array(place))
        parts.append(("ventricles", Blob(middle, shape * np.array(half) * generator.uniform(0.8, 1.2, 3), turn)))
    return Head(center, turn, tuple(parts))


def paint_head(grid: HeadGrid, head: Head) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the labels, uint8, and the share of each voxel within the outer surface of each part, outermost first."""
    grid.head = head
    labels = np.zeros(grid.shape, dtype=np.uint8)
    fractions: dict[str, np.ndarray] = {}
    for name, blob in head.parts:
        labels[grid.inside(blob)] = HEAD_LABELS[name]
        share = grid.fraction(blob)
        fractions[name] = np.maximum(fractions[name], share) if name in fractions else share
    return labels, fractions


def dilated(mask: np.ndarray) -> np.ndarray:
    """Return a mask with the six neighbors of its voxels."""
    grown = mask.copy()
    for axis in range(mask.ndim):
        first, last = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
        first[axis], last[axis] = slice(1, None), slice(None, -1)
        grown[tuple(first)] |= mask[tuple(last)]
        grown[tuple(last)] |= mask[tuple(first)]
    return grown
