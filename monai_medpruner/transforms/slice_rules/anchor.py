# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The paper's rule: keep a slice when it differs enough from the last kept one; bounds on what it may skip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite

import torch

from monai_medpruner.errors import SettingsError, SpacingError, VolumeShapeError
from monai_medpruner.transforms.anchor_rule import GAMMA_GRID, AnchoredSlices, anchor_slices, guarded_slices
from monai_medpruner.transforms.slice_rules.base import (
    SliceChoice,
    SliceRule,
    SliceStack,
    require_at_least_zero,
    require_positive,
)
from monai_medpruner.transforms.slice_rules.evenly_spaced_mm import fewest_slices, gap_notes, smallest_gap

__all__ = ["AnchorRule", "block_pixels"]

Decide = Callable[[torch.Tensor, float], AnchoredSlices]


@dataclass(frozen=True)
class AnchorRule(SliceRule):
    r"""Keeps a slice that differs enough from the last kept one, the anchor (MedPruner, arXiv:2603.11625, eq. 2).

    The first slice is kept. A later slice is kept, and becomes the anchor, when its mean absolute difference to the
    anchor is greater than ``threshold``; see :func:`~monai_medpruner.transforms.anchor_rule.anchor_slices`.

    With ``max_gap_mm`` a slice is also kept, and becomes the anchor, where the next slice would be farther from the
    anchor than that: neighboring kept slices are never farther apart, from center to center, and the last slice of the
    volume is within reach of the last kept one. So every ball of that diameter inside the stack meets a kept slice,
    whatever the voxels. Where the source itself has a larger gap, the slices at both of its ends are kept, and a note
    says so.

    With ``guard_mm`` a slice is also kept when the mean signed difference over a square block of a channel exceeds
    ``guard_threshold``; see :class:`~monai_medpruner.transforms.InterSliceAnchorFilter`.

    Args:
        threshold: γ, in the units of the image, at least 0. The default is for intensities in [0, 1]. None keeps every
            slice.
        max_gap_mm: largest distance between kept slices' centers in mm, above 0; None sets no bound, as in the paper.
        guard_mm: side of a block in mm, above 0; None is no guard.
        guard_threshold: in the units of the image, above 0.
    """

    threshold: float | None = 0.025
    max_gap_mm: float | None = None
    guard_mm: float | None = None
    guard_threshold: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least_zero("threshold", self.threshold)
        for name in ("max_gap_mm", "guard_mm", "guard_threshold"):
            require_positive(name, getattr(self, name))

    def choose(self, stack: SliceStack) -> SliceChoice:
        """Choose the slices, and measure the distance of every slice to its anchor.

        Raises:
            NonFiniteVoxelsError: the volume holds NaN or infinite voxels.
            VolumeShapeError: there is a guard, and the volume has not three spatial axes.
            SpacingError: there is a guard, and the in-plane spacing is not finite.
        """
        notes = () if self.max_gap_mm is None else gap_notes(stack, self.max_gap_mm, "max_gap_mm")
        if self.threshold is None:
            if self.guard_mm is not None:
                idle = (
                    "The guard (guard_mm) had nothing to do: without a threshold (gamma none), as under a budget, this "
                    "rule drops no slice."
                )
                notes = (*notes, idle)
            return SliceChoice(list(range(stack.depth)), None, notes)
        if self.max_gap_mm is None:
            decided = self._decide(stack)(stack.slices, self.threshold)
        else:
            decided = self._walk(stack, self.threshold)
        return SliceChoice(decided.kept, decided.distances, notes)

    def at_most(self, stack: SliceStack, max_slices: int) -> AnchorRule:
        """Return the rule with the smallest γ at which at most ``max_slices`` slices are kept.

        γ is one of :data:`~monai_medpruner.transforms.anchor_rule.GAMMA_GRID`.

        The number of kept slices is not monotone in γ, hence a grid, searched from below. The number wins over the
        bounds: where ``max_gap_mm`` alone keeps more, it becomes the smallest that does not, and where the guard keeps
        more at every γ, it is given up.

        Raises:
            SettingsError: no γ of the grid keeps so few slices; intensities reach far beyond [0, 1].
        """
        rule = self
        if self.max_gap_mm is not None and len(fewest_slices(stack, self.max_gap_mm, first=True)) > max_slices:
            rule = rule._with(max_gap_mm=smallest_gap(stack, max_slices, first=True))
        found = rule._smallest_threshold(stack, max_slices)
        if found is None and rule.guard_mm is not None:
            rule = rule._with(guard_mm=None)
            found = rule._smallest_threshold(stack, max_slices)
        if found is None:
            raise SettingsError(
                f"no threshold up to {GAMMA_GRID[-1]:g} keeps at most {max_slices} slices: scale intensities to [0, 1] "
                "first, or choose another slice rule."
            )
        return rule._with(threshold=found)

    def _smallest_threshold(self, stack: SliceStack, max_slices: int) -> float | None:
        """The smallest γ of the grid that keeps at most ``max_slices``; None if there is none.

        Neighboring thresholds compare mostly the same pairs of slices: each pair is measured once.
        """
        decide, measured = self._decide(stack), dict[tuple[int, int], float]()

        def distance(anchor: int, index: int) -> float:
            if (anchor, index) not in measured:
                pair = decide(stack.slices[[anchor, index]], inf)
                measured[anchor, index] = inf if len(pair.kept) == 2 else pair.distances[1]  # the guard keeps it
            return measured[anchor, index]

        def keeps_few(threshold: float) -> bool:
            anchor, count = 0, 1
            for index in range(1, stack.depth):
                if self._bound_keeps(stack, anchor, index) or distance(anchor, index) > threshold:
                    anchor, count = index, count + 1
                if count > max_slices:
                    return False
            # a distance within rounding of γ may fall on the other side where it is exact
            return len(self._with(threshold=threshold).choose(stack).kept) <= max_slices

        return next(filter(keeps_few, GAMMA_GRID), None)

    def _bound_keeps(self, stack: SliceStack, anchor: int, index: int) -> bool:
        """Whether ``max_gap_mm`` keeps a slice whose anchor is ``anchor``, whatever its voxels."""
        gap, following = self.max_gap_mm, min(index + 1, stack.depth - 1)
        return gap is not None and (stack.beyond(anchor, following, gap) or stack.beyond(anchor, index, gap))

    def _walk(self, stack: SliceStack, threshold: float) -> AnchoredSlices:
        """Walk the volume in segments, from an anchor to the slice that the bound keeps if none before it is kept.

        What is decided in a segment holds, since the anchors are the true ones. The next segment starts at the last of
        them; its bound may lie at the end of what is decided.
        """
        decide, decided = self._decide(stack), AnchoredSlices([0], [0.0])
        while (start := len(decided.distances)) < stack.depth:
            anchor = decided.kept[-1]
            end = anchor + 1
            while end < stack.depth - 1 and not self._bound_keeps(stack, anchor, end):
                end += 1
            kept, distances = decide(stack.slices[anchor : end + 1], threshold)
            decided.distances.extend(distances[start - anchor :])
            decided.kept.extend(anchor + index for index in kept[1:])
            if decided.kept[-1] == anchor and self._bound_keeps(stack, anchor, end):
                decided.kept.append(end)
        return decided

    def _decide(self, stack: SliceStack) -> Decide:
        """The decision on slices ``(n, C, …)`` of this volume, the first of which is the anchor."""
        if self.guard_mm is None:
            return lambda slices, threshold: anchor_slices(slices, 0, threshold)
        block, guard = block_pixels(stack, self.guard_mm), self.guard_threshold
        return lambda slices, threshold: guarded_slices(slices, 0, threshold, block, guard)


def block_pixels(stack: SliceStack, side_mm: float) -> tuple[int, int]:
    """Return the pixels of a block of ``side_mm`` along both axes of a slice, at least one, at most the slice's."""
    shape = stack.slices.shape[2:]
    if len(shape) != 2:
        raise VolumeShapeError(
            f"guard_mm needs a channel-first volume with three spatial axes, got shape {tuple(stack.voxels.shape)}."
        )
    spacing = stack.spacing_mm
    if not all(map(isfinite, spacing)):
        raise SpacingError(f"guard_mm needs a finite spacing, the affine gives {spacing} mm: run CheckVolume first.")
    first, second = (max(1, round(min(side_mm / step, size))) for step, size in zip(spacing, shape, strict=True))
    return first, second
