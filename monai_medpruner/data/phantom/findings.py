# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""CT phantoms of the head with several small findings of low contrast, lookalikes, and distractors around the head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_medpruner.data.phantom.findings_settings import FindingsSettings
from monai_medpruner.data.phantom.head import HEAD_HU, HEAD_LABELS, Blob, Head, HeadGrid, dilated, draw_head, paint_head
from monai_medpruner.data.phantom.head_surroundings import blur, draw_lookalikes, paint_surroundings
from monai_medpruner.errors import SettingsError

__all__ = ["DENSITIES", "QUADRANTS", "Finding", "FindingsPhantom", "generate_findings"]

DENSITIES = ("hyperdense", "hypodense")
QUADRANTS = ("right anterior", "left anterior", "right posterior", "left posterior")
_BLOCK = 8  # seeds over which the number of findings and the contact with the skull are balanced
_ONE_DENSITY = 0.35  # share of the volumes with two findings or more that are all of one density
_TOUCHING_SHARE = 0.55  # of the findings that are large enough; about half of the largest findings touch the skull
_LARGEST = 1.3  # min ratio of the diameter of the largest finding of a density to each other one of it
_MIDLINE_MM = 4.0  # min distance of a finding from the planes between the quadrants
_GAP_MM = 5.0  # min distance between two findings or lookalikes
_TOUCHING_MM = 8.0  # min diameter of a finding at the skull: the blur of the bone hides a smaller one
_CLEAR_MM = 6.0  # min distance from the skull of a finding that does not touch it
_SMALLEST_VOXELS = 2
_MAX_TRIES, _MAX_PLACES = 100, 200


@dataclass(frozen=True)
class Finding:
    """A finding of the brain, described from its mask.

    Attributes:
        label: its value in the mask of the findings.
        density: one of :data:`DENSITIES`.
        quadrant: one of :data:`QUADRANTS`, relative to the middle of the head.
        diameter_mm: diameter of the sphere that it was painted as; next to the skull, a part of the sphere is missing.
        voxels: number of its voxels.
        center_mm: world position (RAS) of the sphere's center in mm.
        contrast_hu: HU of the finding minus HU of the brain.
        touches_skull: whether one of its voxels has a voxel of the skull beside it, above or below it.
    """

    label: int
    density: str
    quadrant: str
    diameter_mm: float
    voxels: int
    center_mm: tuple[float, float, float]
    contrast_hu: float
    touches_skull: bool

    @property
    def side(self) -> str:
        """The side of the patient: "right" or "left"."""
        return self.quadrant.split()[0]


@dataclass(frozen=True)
class FindingsPhantom:
    """A volume with its ground truth.

    Attributes:
        seed: seed of the phantom.
        volume: (columns, rows, slices) int16, HU.
        affine: (4, 4) float64, RAS mm.
        organs: uint8, shape of the volume; labels as in :data:`~.head.HEAD_LABELS`.
        lesion_mask: uint8, shape of the volume; the label of each finding, 0 elsewhere.
        findings: the findings, by label from 1.
        noise_hu: standard deviation of the noise.
        kernel_mm: standard deviation of the kernel in mm.
    """

    seed: int
    volume: np.ndarray
    affine: np.ndarray
    organs: np.ndarray
    lesion_mask: np.ndarray
    findings: tuple[Finding, ...]
    noise_hu: float
    kernel_mm: float

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Spacing of columns, rows and slices in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    def largest(self, density: str) -> Finding | None:
        """Return the largest finding of a density, or None if there is none."""
        found = [finding for finding in self.findings if finding.density == density]
        return max(found, key=lambda finding: finding.diameter_mm, default=None)


@dataclass(frozen=True)
class _Plan:
    """What a finding shall be, before there is a place for it."""

    density: str
    diameter_mm: float
    touches: bool
    quadrant: str


def generate_findings(seed: int, settings: FindingsSettings | None = None) -> FindingsPhantom:
    """Generate a phantom of the head with findings.

    The number of findings is balanced over each block of 8 seeds that starts at a multiple of 8. Densities, quadrants
    and contact with the skull are drawn alike for all findings, so that no answer follows from another one's question.

    Args:
        seed: at least 0; the same seed and settings give the same voxels.
        settings: ranges to sample from.

    Raises:
        SettingsError: the seed is negative, or the findings do not fit into the brain.
    """
    settings = settings or FindingsSettings()
    if seed < 0:
        raise SettingsError(f"seed must be at least 0, got {seed}.")
    generator = np.random.default_rng([seed, 8])
    block, index = divmod(seed, _BLOCK)
    place = int(np.random.default_rng([8, block]).permutation(_BLOCK)[index])
    count = settings.counts[place % len(settings.counts)]
    for _ in range(_MAX_TRIES):
        head = draw_head(generator, settings.scale, settings.rotation_degrees)
        grid = _draw_grid(generator, settings, head)
        labels, fractions = paint_head(grid, head)
        placed = _place_findings(generator, grid, labels, _plan(generator, settings, count))
        if placed is not None:
            break
    else:
        raise SettingsError(f"{count} findings of {settings.diameter_mm} mm do not fit into the brain.")
    return _rendered(seed, generator, settings, grid, labels, fractions, placed)


def _rendered(
    seed: int,
    generator: np.random.Generator,
    settings: FindingsSettings,
    grid: HeadGrid,
    labels: np.ndarray,
    fractions: dict[str, np.ndarray],
    placed: list[tuple[_Plan, Blob, np.ndarray]],
) -> FindingsPhantom:
    """Paint findings, lookalikes and distractors in HU, and add kernel and noise."""
    brain_hu = HEAD_HU["brain"] + float(generator.uniform(-3, 3))
    voxels = np.full(labels.shape, HEAD_HU["air"], dtype=np.float32)
    for name, fraction in fractions.items():
        voxels += fraction * ((brain_hu if name == "brain" else HEAD_HU[name]) - voxels)
    mask, findings = np.zeros_like(labels), []
    taken = np.zeros(labels.shape, dtype=bool)
    for label, (plan, blob, inside) in enumerate(placed, start=1):
        ranges = settings.hyperdense_hu if plan.density == "hyperdense" else settings.hypodense_hu
        contrast = float(generator.uniform(*ranges)) * (1 if plan.density == "hyperdense" else -1)
        mask[inside] = label
        share = grid.fraction(blob) * fractions["brain"]
        voxels += share * (brain_hu + contrast - voxels)
        x, y, z = blob.center.tolist()
        touches = bool((dilated(inside) & (labels == HEAD_LABELS["skull"])).any())
        findings.append(
            Finding(
                label, plan.density, plan.quadrant, plan.diameter_mm, int(inside.sum()), (x, y, z), contrast, touches
            )
        )
        taken |= grid.inside(Blob(blob.center, blob.semi_axes + _GAP_MM, blob.axes))
    draw_lookalikes(generator, grid, labels, fractions, taken, voxels, settings.lookalikes)
    paint_surroundings(generator, grid, labels, voxels, settings.distractors)
    kernel = float(generator.uniform(*settings.kernel_mm))
    noise = float(generator.uniform(*settings.noise_hu))
    voxels = blur(voxels, kernel / grid.pixel_mm)
    grain = blur(generator.standard_normal(voxels.shape, dtype=np.float32), 0.5 * kernel / grid.pixel_mm)
    voxels += noise * grain / max(float(grain.std()), 1e-6)
    volume = np.clip(np.rint(voxels), -1024, 3071).astype(np.int16)
    return FindingsPhantom(seed, volume, grid.affine, labels, mask, tuple(findings), noise, kernel)


def _plan(generator: np.random.Generator, settings: FindingsSettings, count: int) -> list[_Plan]:
    """Draw density, diameter, quadrant and contact of each finding; one of each density is clearly the largest."""
    if generator.uniform() < _ONE_DENSITY or count == 1:
        densities = [str(generator.choice(DENSITIES))] * count
    else:
        hyperdense = int(generator.integers(1, count))
        densities = ["hyperdense"] * hyperdense + ["hypodense"] * (count - hyperdense)
    plans: list[_Plan] = []
    low, high = settings.diameter_mm
    for density in DENSITIES:
        number = densities.count(density)
        largest = float(generator.uniform((low + high) / 2 if number > 1 else low, high))
        for place in range(number):
            diameter = largest if place == 0 else float(generator.uniform(low, largest / _LARGEST))
            quadrant = str(generator.choice(QUADRANTS))
            touches = bool(generator.uniform() < _TOUCHING_SHARE) and diameter >= _TOUCHING_MM
            plans.append(_Plan(density, round(diameter, 1), touches, quadrant))
    tops = [max(plan.diameter_mm for plan in plans if plan.density == density) for density in set(densities)]
    return _plan(generator, settings, count) if len(tops) == 2 and max(tops) < 1.25 * min(tops) else plans


def _draw_grid(generator: np.random.Generator, settings: FindingsSettings, head: Head) -> HeadGrid:
    """Sample size, spacing and position of the scan."""
    size = int(generator.choice(settings.in_plane_sizes))
    depth = int(generator.integers(settings.depth[0], settings.depth[1], endpoint=True))
    pixel = round(float(generator.uniform(*settings.field_of_view_mm)) / size, 4)
    spacing = round(float(generator.uniform(*settings.slice_spacing_mm)), 3)
    middle = head.center + np.array([*generator.uniform(-2, 2, 2), generator.uniform(-4, 8)])
    return HeadGrid(size, depth, pixel, spacing * float(generator.choice([-1, 1])), middle)


def _place_findings(
    generator: np.random.Generator, grid: HeadGrid, labels: np.ndarray, plans: list[_Plan]
) -> list[tuple[_Plan, Blob, np.ndarray]] | None:
    """Find a place for each finding, the largest first; None if there is none."""
    brain, skull = labels == HEAD_LABELS["brain"], labels == HEAD_LABELS["skull"]
    free = brain.copy()
    placed: list[tuple[_Plan, Blob, np.ndarray]] = []
    for plan in sorted(plans, key=lambda plan: -plan.diameter_mm):
        one = _place(generator, grid, free, brain, skull, plan)
        if one is None:
            return None
        blob, inside = one
        free &= ~grid.inside(Blob(blob.center, blob.semi_axes + _GAP_MM, blob.axes))
        placed.append((plan, blob, inside))
    order = generator.permutation(len(placed)).tolist()
    return [placed[index] for index in order]


def _place(
    generator: np.random.Generator,
    grid: HeadGrid,
    free: np.ndarray,
    brain: np.ndarray,
    skull: np.ndarray,
    plan: _Plan,
) -> tuple[Blob, np.ndarray] | None:
    """Find a place for a finding in its quadrant, touching the skull or well apart from it."""
    right, anterior = plan.quadrant.split()[0] == "right", plan.quadrant.split()[1] == "anterior"
    radius = plan.diameter_mm / 2
    local = grid.local_coordinates()
    within = (local[0] * (1 if right else -1) > radius + _MIDLINE_MM) & (
        local[1] * (1 if anterior else -1) > radius + _MIDLINE_MM
    )
    depth = grid.depth_in_brain()
    near = (depth < radius) & (depth > max(0.4 * radius, radius - 2.5)) if plan.touches else depth > radius + _CLEAR_MM
    candidates = np.flatnonzero(within & near & brain)
    for _ in range(_MAX_PLACES if len(candidates) else 0):
        index = np.unravel_index(int(candidates[generator.integers(len(candidates))]), brain.shape)
        blob = Blob(grid.world(index), radius * generator.uniform(0.92, 1.08, 3), np.eye(3))
        ball = grid.inside(blob)
        inside = ball & brain
        if inside.sum() < _SMALLEST_VOXELS or (inside & ~free).any() or grid.leaves(blob):
            continue
        if bool((dilated(inside) & skull).any()) == plan.touches:
            return blob, inside
    return None
