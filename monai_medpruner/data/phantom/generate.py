# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Generation of CT phantoms in Hounsfield units with known findings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_medpruner.data.phantom.anatomy import HOUNSFIELD, ORGANS, TORSO_MM, Pose, Shape, TorsoGrid, paint_torso
from monai_medpruner.data.phantom.settings import PHASES, PhantomSettings
from monai_medpruner.errors import SettingsError

__all__ = ["Lesion", "Phantom", "generate_phantom"]

# world axis of each array axis (columns, rows, slices); rows of a slice run toward posterior or inferior, columns
# toward left or posterior, as in scanner files
_ARRAY_AXES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
_AIR_HU, _MIN_HU = -1000.0, -1024
_MIN_THICKNESS_PIXELS = 1.05  # min ratio of slice thickness to pixel width
_TABLE_HU = -80.0
_TABLE_MM = (12.0, 200.0)  # thickness, half width
_HU_VARIATION = 4.0  # max deviation of an organ's HU from the HOUNSFIELD table
_NODULE_HU = (20.0, 60.0)
_MIN_MIDLINE_MM = 25.0  # min distance of a lesion from the midline, so that its side is unambiguous
_MAX_TRIES = 2000
_SIDES = ("right", "left")


@dataclass(frozen=True)
class Lesion:
    """A spherical lesion in an organ.

    Attributes:
        organ: "liver", "spleen", "kidney" or "lung".
        side: "right" or "left" of the patient.
        diameter_mm: diameter in mm.
        center_mm: world position (RAS) in mm.
        contrast_hu: HU of the lesion minus HU of the surrounding organ.
        label: value in the lesion mask.
    """

    organ: str
    side: str
    diameter_mm: float
    center_mm: tuple[float, float, float]
    contrast_hu: float
    label: int = 1

    @property
    def density(self) -> str:
        """Density relative to the organ: "hypodense" or "hyperdense"."""
        return "hypodense" if self.contrast_hu < 0 else "hyperdense"


@dataclass(frozen=True)
class Phantom:
    """A volume with its ground truth.

    Attributes:
        seed: seed of the phantom.
        volume: (columns, rows, slices) int16, HU.
        affine: (4, 4) float64, RAS mm.
        organs: uint8, shape of the volume; labels as in :data:`ORGANS`.
        lesion_mask: uint8, shape of the volume; labels of the lesions, 0 elsewhere.
        lesions: zero or one lesion.
        organ_hu: HU of each organ before noise.
        phase: contrast phase, one of :data:`PHASES`.
        plane: plane of acquisition; slices are along the last axis.
        noise_hu: standard deviation of the noise.
    """

    seed: int
    volume: np.ndarray
    affine: np.ndarray
    organs: np.ndarray
    lesion_mask: np.ndarray
    lesions: list[Lesion]
    organ_hu: dict[str, float]
    phase: str
    plane: str
    noise_hu: float

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Spacing of columns, rows and slices in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z


@dataclass(frozen=True)
class _Case:
    """Attributes that are balanced over consecutive seeds."""

    plane: str
    phase: str
    organ: str | None  # None: no lesion
    sign: int
    side: str


def generate_phantom(seed: int, settings: PhantomSettings | None = None) -> Phantom:
    """Generate a phantom.

    Planes, phases, and organs, sides and densities of lesions are balanced over each block of 36 seeds that starts at a
    multiple of 36. Over all organs, a third of the phantoms have no lesion, a third a hypodense one and a third a
    hyperdense one; lung nodules are always hyperdense.

    Args:
        seed: at least 0; the same seed and settings give the same voxels.
        settings: ranges to sample from.

    Raises:
        SettingsError: the seed is negative, or the requested lesion does not fit into the part covered by the slices.
    """
    settings = settings or PhantomSettings()
    if seed < 0:
        raise SettingsError(f"seed must be at least 0, got {seed}.")
    case = _balanced_case(seed, settings)
    generator = np.random.default_rng(seed)
    pose = _draw_pose(generator, settings)
    affine, grid = _draw_grid(generator, settings, case.plane, pose)
    organs = paint_torso(grid, generator)
    phase = PHASES.index(case.phase)
    hu = {name: HOUNSFIELD[name][phase] + generator.uniform(-_HU_VARIATION, _HU_VARIATION) for name in ORGANS}
    voxels = np.array([_AIR_HU, *hu.values()], dtype=np.float32)[grid.labels]
    _add_table(voxels, grid)
    lesion_mask = np.zeros_like(grid.labels)
    lesions = []
    if case.organ is not None:
        lesion, ball = _draw_lesion(generator, settings, case, grid, organs, hu)
        organ = case.organ if case.organ in hu else f"{lesion.side} {case.organ}"
        lesion_mask[ball] = lesion.label
        voxels[ball] = hu[organ] + lesion.contrast_hu
        lesions.append(lesion)
    noise = float(generator.uniform(*settings.noise_hu))
    voxels += noise * generator.standard_normal(voxels.shape, dtype=np.float32)
    volume = np.clip(np.rint(voxels), _MIN_HU, 3071).astype(np.int16)
    return Phantom(seed, volume, affine, grid.labels, lesion_mask, lesions, hu, case.phase, case.plane, noise)


def _balanced_case(seed: int, settings: PhantomSettings) -> _Case:
    """Return the case of a seed, from two permutations of the 36 seeds of its block."""
    findings: list[tuple[str | None, int, str]] = []
    for organ in settings.lesion_organs:
        sides = {"liver": ("right",) * 2, "spleen": ("left",) * 2}.get(organ, _SIDES)
        signs = (1, 1, 1) if organ == "lung" else (-1, -1, 1)
        findings += [(organ, sign, side) for sign in signs for side in sides]
    findings += [(None, 0, "")] * (len(findings) // 2)
    block, index = divmod(seed, 36)
    random = np.random.default_rng([36, block])
    scans = [(plane, phase) for plane in settings.planes for phase in settings.phases]
    plane, phase = scans[random.permutation(36)[index] % len(scans)]
    organ, sign, side = findings[random.permutation(36)[index] % len(findings)]
    return _Case(plane, phase, organ, sign, side)


def _draw_pose(generator: np.random.Generator, settings: PhantomSettings) -> Pose:
    """Sample shift, rotation and scale of the body."""
    limit = np.radians(settings.rotation_degrees) * np.array([0.4, 0.4, 1.0])
    rotation = np.eye(3)
    for axis, angle in enumerate(generator.uniform(-limit, limit)):
        turn, (i, j) = np.eye(3), [other for other in range(3) if other != axis]
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = turn @ rotation
    shift = generator.uniform(-settings.shift_mm, settings.shift_mm, 3)
    return Pose(shift, rotation, float(generator.uniform(*settings.scale)))


def _draw_grid(
    generator: np.random.Generator, settings: PhantomSettings, plane: str, pose: Pose
) -> tuple[np.ndarray, TorsoGrid]:
    """Sample size, spacing and position of the scan; return the affine (4, 4) and an empty grid."""
    size = int(generator.choice(settings.in_plane_sizes))
    depth = int(generator.integers(settings.depth[0], settings.depth[1], endpoint=True))
    side_mm = generator.uniform(*settings.field_of_view_mm)
    world_axes = _ARRAY_AXES[plane]
    span = TORSO_MM[world_axes[2]] * pose.scale * generator.uniform(*settings.coverage)
    # NIfTI does not store the plane of acquisition; readers infer it from the largest spacing
    depth = min(depth, int(span / (_MIN_THICKNESS_PIXELS * side_mm / size)))
    # rounded spacings, as in scanner files
    pixel, thickness = round(side_mm / size, 4), round(span / depth, 3)
    steps = (-pixel, -pixel, float(generator.choice([-1, 1])) * thickness)
    affine, coordinates = np.zeros((4, 4)), []
    affine[3, 3] = 1
    for axis, (world, step, number) in enumerate(zip(world_axes, steps, (size, size, depth), strict=True)):
        middle = pose.shift[world] if axis == 2 else 0.0  # the slices are centered on the body
        start = round(middle - step * (number - 1) / 2, 3)
        affine[world, axis], affine[world, 3] = step, start
        coordinates.append(start + step * np.arange(number))
    return affine, TorsoGrid(world_axes, coordinates, pose)


def _add_table(voxels: np.ndarray, grid: TorsoGrid) -> None:
    """Add a flat table below the back, replacing only air."""
    thickness, half_width = _TABLE_MM
    top = grid.pose.shift[1] - grid.pose.scale * TORSO_MM[1] / 2
    sides = []
    for world, axis in zip(grid.world_axes, grid.coordinates, strict=True):
        kept = {0: np.abs(axis) <= half_width, 1: (axis <= top) & (axis > top - thickness)}
        sides.append(np.flatnonzero(kept.get(world, np.ones(len(axis), dtype=bool))))
    box = np.ix_(*sides)
    part = voxels[box]
    part[grid.labels[box] == 0] = _TABLE_HU
    voxels[box] = part


def _draw_lesion(
    generator: np.random.Generator,
    settings: PhantomSettings,
    case: _Case,
    grid: TorsoGrid,
    organs: dict[str, Shape],
    hu: dict[str, float],
) -> tuple[Lesion, tuple[np.ndarray, ...]]:
    """Sample a lesion inside its organ; return it and the indices of its voxels."""
    name = f"{case.side} {case.organ}" if case.organ in ("kidney", "lung") else str(case.organ)
    diameter = round(float(generator.uniform(*settings.lesion_diameter_mm)), 1)
    if case.organ == "lung":
        contrast = generator.uniform(*_NODULE_HU) - hu[name]
    else:
        contrast = case.sign * generator.uniform(*settings.lesion_contrast_hu)
    shape, radius, side = organs[name], diameter / 2, 1 if case.side == "right" else -1
    room = max(1 - radius / (grid.pose.scale * shape.semi_axes.min()), 0.0)
    for _ in range(_MAX_TRIES):
        direction = generator.normal(size=3)
        point = room * np.cbrt(generator.uniform()) * direction / np.linalg.norm(direction)
        anatomy = shape.center + shape.semi_axes * point
        center = _snap_to_voxel(generator, grid, grid.pose.to_world(anatomy), radius)
        ball = _ball(grid, center, radius)
        if side * anatomy[0] < _MIN_MIDLINE_MM or ball is None or (grid.labels[ball] != ORGANS[name]).any():
            continue
        x, y, z = center.tolist()
        return Lesion(str(case.organ), case.side, diameter, (x, y, z), float(contrast)), ball
    raise SettingsError(f"no lesion of {diameter} mm fits into the part of the {name} covered by the slices.")


def _snap_to_voxel(generator: np.random.Generator, grid: TorsoGrid, point: np.ndarray, radius: float) -> np.ndarray:
    """Move a point close to a voxel center, so that lesions smaller than the slice spacing remain visible."""
    moved = np.empty(3)
    for world, axis in zip(grid.world_axes, grid.coordinates, strict=True):
        nearest = axis[np.abs(axis - point[world]).argmin()]
        limit = 0.25 * min(radius, abs(axis[1] - axis[0]))
        moved[world] = nearest + generator.uniform(-limit, limit)
    return moved


def _ball(grid: TorsoGrid, center: np.ndarray, radius: float) -> tuple[np.ndarray, ...] | None:
    """Return the voxel indices of a sphere, or None if it extends beyond the scan."""
    near, squares = [], []
    for world, axis in zip(grid.world_axes, grid.coordinates, strict=True):
        if not axis.min() <= center[world] - radius <= center[world] + radius <= axis.max():
            return None
        near.append(np.flatnonzero(np.abs(axis - center[world]) <= radius))
        squares.append((axis[near[-1]] - center[world]) ** 2)
    u, v, w = squares
    inside = np.nonzero(u[:, None, None] + v[:, None] + w <= radius**2)
    return tuple(indices[part] for indices, part in zip(near, inside, strict=True))
