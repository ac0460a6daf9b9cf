# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Keep slices evenly spaced along the volume's cumulative change."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

from monai_medpruner.transforms.slice_rules.base import SliceChoice, SliceRule, SliceStack, require_count
from monai_medpruner.transforms.slice_rules.consecutive import mean_differences

__all__ = ["CumulativeChange"]


@dataclass(frozen=True)
class CumulativeChange(SliceRule):
    """Spends slices where the volume changes: equal shares of the summed change between kept slices.

    The change of a slice is its mean absolute difference to the slice before it; summed up, it runs from 0 at the first
    slice to S at the last. For i = 0 … count - 1 the first slice is kept whose sum reaches (i + 1/2) S / count. Slices
    that are reached several times are kept once, so that fewer than ``count`` may be left. Where nothing changes, the
    slice in the middle is kept. Distances are the differences to the slice before.

    Args:
        count: largest number of slices, at least 1; None, or a volume with no more slices, keeps them all.
    """

    count: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("count", self.count)

    def choose(self, stack: SliceStack) -> SliceChoice:
        """Choose the slices.

        Raises:
            NonFiniteVoxelsError: the volume holds NaN or infinite voxels.
        """
        differences = mean_differences(stack)
        if self.count is None or stack.depth <= self.count:
            return SliceChoice(list(range(stack.depth)), differences)
        sums = list(accumulate(differences))
        if sums[-1] == 0:
            return SliceChoice([(stack.depth - 1) // 2], differences)
        marks = ((index + 0.5) * sums[-1] / self.count for index in range(self.count))
        return SliceChoice(sorted({bisect_left(sums, mark) for mark in marks}), differences)

    def at_most(self, stack: SliceStack, max_slices: int) -> CumulativeChange:
        """Return the rule with ``count`` at ``max_slices``, or at the volume's depth where that is less."""
        return self._with(count=min(max_slices, stack.depth))
