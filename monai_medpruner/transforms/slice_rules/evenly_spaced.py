# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Keep evenly spaced slices, by index."""

from __future__ import annotations

from dataclasses import dataclass

from monai_medpruner.transforms.slice_rules.base import SliceChoice, SliceRule, SliceStack, require_count

__all__ = ["EvenlySpaced"]


@dataclass(frozen=True)
class EvenlySpaced(SliceRule):
    """Keeps the slices at the centers of ``count`` equal parts of the volume, by index.

    Slice ``floor((i + 1/2) D / count)`` of D for i = 0 … count - 1. Voxels are not read.

    Args:
        count: number of slices, at least 1; a volume with fewer keeps them all, None keeps them all.
    """

    count: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("count", self.count)

    def choose(self, stack: SliceStack) -> SliceChoice:
        """Choose the slices."""
        depth = stack.depth
        count = depth if self.count is None else min(self.count, depth)
        return SliceChoice([(2 * index + 1) * depth // (2 * count) for index in range(count)])

    def at_most(self, stack: SliceStack, max_slices: int) -> EvenlySpaced:
        """Return the rule with ``count`` at ``max_slices``, or at the volume's depth where that is less."""
        return self._with(count=min(max_slices, stack.depth))
