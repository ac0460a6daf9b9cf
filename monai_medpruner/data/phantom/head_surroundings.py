# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What else a scan of the head shows: lookalikes in the brain, markers, wires and head rest, and the kernel's blur."""

from __future__ import annotations

import numpy as np

from monai_medpruner.data.phantom.head import HEAD_LABELS, Blob, HeadGrid

__all__ = ["blur", "draw_lookalikes", "paint_surroundings"]

_CALCIFICATION_HU, _CYST_HU, _VESSEL_HU = (130.0, 300.0), (4.0, 10.0), (62.0, 75.0)
_REST_HU, _MARKER_HU, _WIRE_HU = -150.0, (150.0, 1200.0), (800.0, 2500.0)
_MAX_TRIES = 60


def draw_lookalikes(
    generator: np.random.Generator,
    grid: HeadGrid,
    labels: np.ndarray,
    fractions: dict[str, np.ndarray],
    taken: np.ndarray,
    voxels: np.ndarray,
    number: tuple[int, int],
) -> None:
    """Paint calcifications (brighter than findings), cysts (as dark as the ventricles) and vessels (long and thin).

    Args:
        generator: random generator.
        grid: grid of the slices.
        labels: labels of the head; lookalikes lie in the brain.
        fractions: result of :func:`paint_head`.
        taken: mask that no lookalike may enter; it grows.
        voxels: HU, changed in place.
        number: range of the number of lookalikes.
    """
    brain = np.flatnonzero(labels == HEAD_LABELS["brain"])
    for _ in range(int(generator.integers(number[0], number[1], endpoint=True))):
        kind = int(generator.integers(3))
        for _ in range(_MAX_TRIES):
            center = grid.world(np.unravel_index(int(brain[generator.integers(len(brain))]), labels.shape))
            if kind == 2:
                direction = generator.normal(size=3) * np.array([1, 1, 0.2])
                half = np.array([1.6, 1.6, generator.uniform(12, 22)])
                blob, hu = Blob(center, half, _axes(direction)), float(generator.uniform(*_VESSEL_HU))
            else:
                size = (1.5, 3.5) if kind == 0 else (2.5, 7.0)
                blob = Blob(center, np.full(3, generator.uniform(*size)), np.eye(3))
                hu = float(generator.uniform(*(_CALCIFICATION_HU if kind == 0 else _CYST_HU)))
            if not (grid.inside(blob) & taken).any():
                break
        else:
            continue
        taken |= grid.inside(Blob(blob.center, blob.semi_axes + 4, blob.axes))
        share = grid.fraction(blob) * fractions["brain"]
        voxels += share * (hu - voxels)


def paint_surroundings(
    generator: np.random.Generator, grid: HeadGrid, labels: np.ndarray, voxels: np.ndarray, number: tuple[int, int]
) -> None:
    """Paint a head rest below the head, markers on the skin, and wires on the head rest, outside the head only.

    Args:
        generator: random generator.
        grid: grid of the slices.
        labels: labels of the head.
        voxels: HU, changed in place.
        number: range of the number of markers and wires.
    """
    head = grid.known_head()
    outside = labels == 0
    scalp = dict(head.parts)["scalp"]
    shell = grid.radii(Blob(scalp.center, scalp.semi_axes * np.array([1, 1, 100.0]), scalp.axes))
    behind = grid.local_coordinates()[1] < -0.45 * scalp.semi_axes[1]
    rest = outside & (shell > 1.03) & (shell < 1.09) & behind
    voxels[rest] = _REST_HU
    for _ in range(int(generator.integers(number[0], number[1], endpoint=True))):
        wire = generator.uniform() < 0.4
        angle = generator.uniform(np.pi * 1.2, np.pi * 1.8) if wire else generator.uniform(0, 2 * np.pi)
        reach = scalp.semi_axes * (1.06 if wire else 1.02)
        offset = np.array([reach[0] * np.cos(angle), reach[1] * np.sin(angle), 0.0])
        center = scalp.center + scalp.axes @ offset
        center[2] = generator.choice(grid.coordinates[2])
        half = np.array([1.5, 1.5, 60.0]) if wire else generator.uniform(2.0, 4.0, 3)
        hu = float(generator.uniform(*(_WIRE_HU if wire else _MARKER_HU)))
        share = grid.fraction(Blob(center, half, np.eye(3))) * outside
        voxels += share * (hu - voxels)


def blur(voxels: np.ndarray, sigma_pixels: float) -> np.ndarray:
    """Return voxels after a Gaussian in the plane of the slices, float32; edges are repeated.

    Args:
        voxels: (columns, rows, slices).
        sigma_pixels: standard deviation in pixels; below 0.2 the voxels come back as they are.
    """
    if sigma_pixels < 0.2:
        return voxels.astype(np.float32)
    reach = int(np.ceil(3 * sigma_pixels))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_pixels) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (0, 1):
        padding = [(reach, reach) if place == axis else (0, 0) for place in range(3)]
        padded, size = np.pad(voxels, padding, mode="edge"), voxels.shape[axis]
        voxels = np.zeros(voxels.shape, dtype=np.float32)
        for start, weight in enumerate(weights):
            voxels += weight * (padded[start : start + size] if axis == 0 else padded[:, start : start + size])
    return voxels


def _axes(direction: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) whose third column is a direction."""
    third = direction / np.linalg.norm(direction)
    first = np.cross(np.eye(3)[np.abs(third).argmin()], third)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(third, first), third], axis=1)
