# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The largest stretch of a volume that no kept slice meets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["SliceGap", "largest_gap"]


class SliceGap(NamedTuple):
    """A stretch without a kept slice.

    Attributes:
        length_mm: between the centers of the slices at its ends.
        first: slice at its lower end: a kept one, or the first of the volume.
        last: slice at its upper end: the next kept one, or the last of the volume.
    """

    length_mm: float
    first: int
    last: int


def largest_gap(positions_mm: Sequence[float], kept: Sequence[int]) -> SliceGap:
    """Return the largest distance between neighboring kept slices, in mm from center to center.

    The ends of the volume count: from its first slice to the first kept one, and from the last kept one to its last
    slice. A ball with at least this diameter, inside the stack, meets a kept slice.

    Args:
        positions_mm: position of every slice along the normal, ascending or descending.
        kept: indices of the kept slices, ascending, at least one.
    """
    bounds = sorted({0, *kept, len(positions_mm) - 1})
    if len(bounds) == 1:
        return SliceGap(0.0, 0, 0)
    return max(
        (SliceGap(abs(positions_mm[later] - positions_mm[earlier]), earlier, later))
        for earlier, later in pairwise(bounds)
    )
