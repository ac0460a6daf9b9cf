# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A torso of ellipsoids: positions of the organs, and their Hounsfield units in each contrast phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["HOUNSFIELD", "ORGANS", "TORSO_MM", "Pose", "Shape", "TorsoGrid", "paint_torso"]

#: label of each organ in the organ mask; 0 is air and table
ORGANS: dict[str, int] = {
    name: label
    for label, name in enumerate(
        (
            "fat",
            "muscle",
            "bowel",
            "right lung",
            "left lung",
            "heart",
            "liver",
            "spleen",
            "right kidney",
            "left kidney",
            "ribs",
            "spine",
            "aorta",
            "vessels",
        ),
        start=1,
    )
}

#: HU of each organ: non-contrast, arterial, venous
HOUNSFIELD: dict[str, tuple[float, float, float]] = {
    "fat": (-100, -100, -100),
    "muscle": (50, 55, 65),
    "bowel": (25, 30, 35),
    "right lung": (-850, -850, -850),
    "left lung": (-850, -850, -850),
    "heart": (40, 260, 140),
    "liver": (55, 70, 110),
    "spleen": (48, 130, 120),
    "right kidney": (32, 160, 190),
    "left kidney": (32, 160, 190),
    "ribs": (400, 400, 400),
    "spine": (350, 350, 350),
    "aorta": (42, 320, 150),
    "vessels": (40, 80, 165),
}

#: extent of the torso along x, y, z in mm, at scale 1
TORSO_MM = (350.0, 240.0, 360.0)

_LONG = 5000.0  # semi-axis in mm of structures that extend through the whole scan
# center and semi-axes in mm: x to the patient's right, y to the front, z upward. Later shapes cover earlier ones.
_SHELL: dict[str, tuple[str, tuple[float, float, float], tuple[float, float, float]]] = {
    "skin": ("fat", (0, 0, 0), (175, 120, 700)),
    "wall": ("muscle", (0, 0, 0), (155, 102, 700)),
    "rib cage": ("ribs", (0, 0, 0), (149, 97, 700)),
    "cavity": ("fat", (0, 4, 0), (138, 86, 900)),
}
_ORGAN_SHAPES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "right lung": ((75, 5, 95), (58, 80, 112)),
    "left lung": ((-72, 5, 98), (54, 78, 110)),
    "heart": ((-20, 32, 52), (50, 42, 48)),
    "liver": ((60, 10, -45), (82, 72, 68)),
    "spleen": ((-100, -32, -25), (33, 44, 50)),
    "right kidney": ((66, -54, -112), (29, 27, 50)),
    "left kidney": ((-66, -54, -98), (29, 27, 50)),
    "spine": ((0, -64, 0), (20, 18, _LONG)),
    "aorta": ((-15, -32, 0), (11, 11, _LONG)),
}
# structures that repeat along the body: period and thickness in mm, slope toward the front in mm per mm
_RIBS = (26.0, 9.0, 0.5)
_VERTEBRAE = (32.0, 25.0, 0.0)
_LOWEST_RIB_MM = -70.0
_BOWEL_LOOPS = 14
_LUNG_VESSELS = 5
_LIVER_VESSELS = 3


@dataclass(frozen=True)
class Pose:
    """Position of the body: world = shift + scale * rotation @ anatomy, in mm.

    Attributes:
        shift: (3,) in mm.
        rotation: (3, 3).
        scale: size of the body relative to the reference anatomy.
    """

    shift: np.ndarray
    rotation: np.ndarray
    scale: float

    def to_world(self, point: np.ndarray) -> np.ndarray:
        """Return the world position in mm of a point (3,) of the anatomy."""
        return self.shift + self.scale * self.rotation @ point


@dataclass(frozen=True)
class Shape:
    """An ellipsoid of the anatomy.

    Attributes:
        organ: a name of :data:`ORGANS`.
        center: (3,) in mm.
        semi_axes: (3,) in mm.
        direction: (3,) unit vector along the third semi-axis.
    """

    organ: str
    center: np.ndarray
    semi_axes: np.ndarray
    direction: np.ndarray

    def axes(self) -> np.ndarray:
        """Rotation (3, 3) whose columns are the directions of the semi-axes."""
        if abs(self.direction[2]) == 1:
            return np.eye(3)
        first = np.cross([0.0, 0.0, 1.0], self.direction)
        first /= np.linalg.norm(first)
        return np.stack([first, np.cross(self.direction, first), self.direction], axis=1)


class TorsoGrid:
    """Labels on a grid that is aligned with the world axes, painted with shapes.

    Args:
        world_axes: (3,) world axis of each array axis.
        coordinates: for each array axis, the world coordinates of its voxels in mm.
        pose: position of the body.
    """

    def __init__(self, world_axes: Sequence[int], coordinates: Sequence[np.ndarray], pose: Pose) -> None:
        self.world_axes = list(world_axes)
        self.coordinates = [np.asarray(axis, dtype=np.float64) for axis in coordinates]
        self.pose = pose
        self.labels = np.zeros([len(axis) for axis in coordinates], dtype=np.uint8)

    def paint(self, shape: Shape, over: np.ndarray | None = None) -> None:
        """Label the voxels inside a shape; with ``over``, a mask of the whole grid, only those inside the mask."""
        box, inside = self.inside(shape)
        if over is not None:
            inside &= over[box]
        self.labels[box][inside] = ORGANS[shape.organ]

    def anatomical_height(self, slope: float) -> np.ndarray:
        """Return the height of each voxel along the body in mm at scale 1, plus ``slope`` times its front position."""
        weights = (self.pose.rotation @ np.array([0.0, slope, 1.0])) / self.pose.scale
        parts = [
            ((axis - self.pose.shift[world]) * weights[world]).astype(np.float32)
            for world, axis in zip(self.world_axes, self.coordinates, strict=True)
        ]
        return parts[0][:, None, None] + parts[1][:, None] + parts[2]

    def inside(self, shape: Shape) -> tuple[tuple[slice, ...], np.ndarray]:
        """Return the bounding box of a shape, as slices of the grid, and a mask of its voxels inside the shape."""
        axes = self.pose.rotation @ shape.axes()
        semi_axes = self.pose.scale * shape.semi_axes
        order = np.ix_(self.world_axes, self.world_axes)
        quadric = ((axes / semi_axes**2) @ axes.T)[order]
        reach = np.sqrt(np.diag((axes * semi_axes**2) @ axes.T))[self.world_axes]
        center = self.pose.to_world(shape.center)[self.world_axes]
        box, local = [], []
        for axis, middle, half in zip(self.coordinates, center, reach, strict=True):
            near = np.flatnonzero(np.abs(axis - middle) <= half)
            part = slice(near[0], near[-1] + 1) if len(near) else slice(0, 0)
            box.append(part)
            local.append((axis[part] - middle).astype(np.float32))
        u, v, w = local
        m = quadric.astype(np.float32)
        plane = (m[0, 0] * u**2)[:, None] + (m[1, 1] * v**2)[None] + 2 * m[0, 1] * np.outer(u, v)
        mixed = 2 * (m[0, 2] * u[:, None] + m[1, 2] * v[None])
        distance = mixed[:, :, None] * w
        distance += plane[:, :, None]
        distance += m[2, 2] * w**2
        return tuple(box), distance <= 1


def paint_torso(grid: TorsoGrid, generator: np.random.Generator) -> dict[str, Shape]:
    """Sample a body and paint it.

    Args:
        grid: an empty grid.
        generator: random generator of the individual variation.

    Returns:
        the shapes of the organs by name.
    """
    shell, inner, organs = _torso_shapes(generator)
    grid.paint(shell[0])
    grid.paint(shell[1])
    over = grid.labels == ORGANS["muscle"]
    for shape in [*shell[2:], *inner]:
        grid.paint(shape, over)
    _interrupt(grid, "ribs", _RIBS, _LOWEST_RIB_MM)
    _interrupt(grid, "spine", _VERTEBRAE, -np.inf)
    return organs


def _interrupt(grid: TorsoGrid, organ: str, repeat: tuple[float, float, float], lowest: float) -> None:
    """Keep an organ only at its repeats along the body; fill the gaps with muscle."""
    period, thickness, slope = repeat
    voxels = np.nonzero(grid.labels == ORGANS[organ])
    at = grid.anatomical_height(slope)[voxels]
    grid.labels[voxels] = np.where((at > lowest) & (at % period < thickness), ORGANS[organ], ORGANS["muscle"])


def _torso_shapes(generator: np.random.Generator) -> tuple[list[Shape], list[Shape], dict[str, Shape]]:
    """Sample the shapes of a body.

    Args:
        generator: random generator of the individual variation.

    Returns:
        the shell (skin, wall, rib cage, cavity), the inner shapes in painting order, and the shapes of the organs by
        name.
    """
    up = np.array([0.0, 0.0, 1.0])
    shell = [Shape(organ, np.array(c, dtype=float), np.array(s, dtype=float), up) for organ, c, s in _SHELL.values()]
    organs = {}
    for name, (center, semi_axes) in _ORGAN_SHAPES.items():
        moved = np.array(center) + generator.uniform(-3, 3, 3)
        organs[name] = Shape(name, moved, np.array(semi_axes) * generator.uniform(0.95, 1.05), up)
    bowel = []
    for _ in range(_BOWEL_LOOPS):
        place = generator.uniform([-90, -5, -200], [90, 60, -60])
        bowel.append(Shape("bowel", place, generator.uniform(14, 28, 3), up))
    vessels = [Shape("vessels", np.array([18.0, -34.0, -100.0]), np.array([12.0, 10.0, 130.0]), up)]
    for name, number, radius in (("right lung", _LUNG_VESSELS, 3.0), ("left lung", _LUNG_VESSELS, 3.0)):
        vessels += [_tube(organs[name], radius, generator) for _ in range(number)]
    vessels += [_tube(organs["liver"], 4.0, generator) for _ in range(_LIVER_VESSELS)]
    return shell, [*bowel, *organs.values(), *vessels], organs


def _tube(organ: Shape, radius: float, generator: np.random.Generator) -> Shape:
    """Sample a long, thin vessel inside an organ; its shape differs from that of any lesion."""
    direction = generator.normal(size=3)
    direction /= np.linalg.norm(direction)
    center = organ.center + organ.semi_axes * generator.uniform(-0.3, 0.3, 3)
    return Shape("vessels", center, np.array([radius, radius, 0.5 * organ.semi_axes.min()]), direction)
