# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Whether the instance numbers of a DICOM series run along its slices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["instance_order", "whole_number"]

# an integer string of DICOM has up to 12 characters
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,12}", flags=re.ASCII)


def whole_number(text: str) -> int | None:
    """Return the number of an integer string; None for any other text, since nothing rests on it."""
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def instance_order(numbers: Sequence[int | None]) -> str | None:
    """Return how instance numbers change from slice to slice.

    Args:
        numbers: InstanceNumber of each slice, in the order of positions; None where a file states none.

    Returns:
        "rising", "falling", or "mixed" where they change direction or repeat; None for a single slice, or where a file
        states no number.
    """
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or len(known) < 2:
        return None
    steps = {(later > earlier) - (later < earlier) for earlier, later in pairwise(known)}
    if steps == {1}:
        return "rising"
    return "falling" if steps == {-1} else "mixed"
