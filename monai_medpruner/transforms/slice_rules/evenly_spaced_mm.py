# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Keep as few slices as leave no gap in millimeters above a limit."""

from __future__ import annotations

from dataclasses import dataclass

from monai_medpruner.transforms.slice_rules.base import (
    POSITION_TOLERANCE_MM,
    SliceChoice,
    SliceRule,
    SliceStack,
    require_positive,
)

__all__ = ["EvenlySpacedMm"]


@dataclass(frozen=True)
class EvenlySpacedMm(SliceRule):
    """Keeps the fewest slices such that every ball of ``gap_mm`` in diameter inside the stack meets one.

    The centers of neighboring kept slices are at most ``gap_mm`` apart, by the real positions; so are the first slice
    of the volume and the first kept one, and the last ones. Each kept slice is the farthest that this allows, and no
    choice needs fewer. Where the source itself has a larger gap, the slices at both of its ends are kept, and a note
    says so. Voxels are not read.

    Args:
        gap_mm: largest distance between kept slices' centers in mm, above 0.
    """

    gap_mm: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("gap_mm", self.gap_mm)

    def choose(self, stack: SliceStack) -> SliceChoice:
        """Choose the slices."""
        kept = fewest_slices(stack, self.gap_mm) or [(stack.depth - 1) // 2]
        return SliceChoice(kept, None, gap_notes(stack, self.gap_mm, "gap_mm"))

    def at_most(self, stack: SliceStack, max_slices: int) -> EvenlySpacedMm:
        """Return the rule with the smallest ``gap_mm`` at which at most ``max_slices`` slices are kept."""
        return self._with(gap_mm=smallest_gap(stack, max_slices))


def fewest_slices(stack: SliceStack, gap_mm: float, first: bool = False) -> list[int]:
    """The fewest slices that leave no gap above ``gap_mm`` but the source's own; none where the stack is that short.

    Args:
        stack: the volume.
        gap_mm: largest distance in mm between kept slices, and between the ends of the stack and the kept slice next to
            them.
        first: keep the first slice as well.
    """
    kept = [0] if first else []
    reached, last = 0, stack.depth - 1  # up to ``reached`` the volume is covered
    while stack.beyond(reached, last, gap_mm):
        following = reached
        while not stack.beyond(reached, following + 1, gap_mm):
            following += 1
        if following == reached and kept:  # a larger gap in the source, whose lower end is kept
            following += 1
        kept.append(following)
        reached = following
    return kept


def smallest_gap(stack: SliceStack, max_slices: int, first: bool = False) -> float:
    """The smallest gap in mm for which :func:`fewest_slices` are at most ``max_slices``."""
    low, high = 0.0, max(stack.distance_mm(0, stack.depth - 1), 1.0)
    for _ in range(64):  # halving: float64 has no more digits
        middle = (low + high) / 2
        if len(fewest_slices(stack, middle, first)) <= max_slices:
            high = middle
        else:
            low = middle
    # the distance that is really left, unless the source itself has a larger one
    left = stack.largest_gap(fewest_slices(stack, high, first)).length_mm
    return left if 0 < left <= high + POSITION_TOLERANCE_MM else high


def gap_notes(stack: SliceStack, gap_mm: float, name: str) -> tuple[str, ...]:
    """Notes where the source itself has larger gaps than ``gap_mm``, or does not say where its slices lie."""
    notes = []
    if not stack.placed:
        notes.append(f"The source does not say where slices lie: for {name} they count as 1 mm apart.")
    wide = [index for index in range(stack.depth - 1) if stack.beyond(index, index + 1, gap_mm)]
    if wide:
        widest = max(wide, key=lambda index: stack.distance_mm(index, index + 1))
        notes.append(
            f"{len(wide)} gaps between slices of the source are larger than {name} {gap_mm:g}; the largest, between "
            f"slices {widest} and {widest + 1} of those given, is {stack.distance_mm(widest, widest + 1):.2f} mm."
        )
    return tuple(notes)
