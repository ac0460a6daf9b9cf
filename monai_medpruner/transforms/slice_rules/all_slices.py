# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Keep every slice."""

from __future__ import annotations

from dataclasses import dataclass

from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms.slice_rules.base import SliceChoice, SliceRule, SliceStack

__all__ = ["AllSlices"]


@dataclass(frozen=True)
class AllSlices(SliceRule):
    """Keeps every slice."""

    def choose(self, stack: SliceStack) -> SliceChoice:
        """Choose all slices."""
        return SliceChoice(list(range(stack.depth)))

    def at_most(self, stack: SliceStack, max_slices: int) -> AllSlices:
        """Return the rule itself.

        Raises:
            SettingsError: the volume has more slices.
        """
        if stack.depth > max_slices:
            raise SettingsError(
                f"the slice rule 'all' keeps all {stack.depth} slices, {max_slices} are allowed: choose another rule, "
                "e.g. evenly_spaced_mm."
            )
        return self
