# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Keep the slices that a rule chooses, within a number of slices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor

from monai_medpruner.data.volume_meta import PerVolumeList
from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms.slice_rules import (
    AnchorRule,
    SliceChoice,
    SliceRule,
    SliceStack,
    select_slice_rule,
    slice_rule_settings,
)
from monai_medpruner.transforms.slice_selection import SliceSelection, SliceSelectiond, fill_from_anchor

__all__ = ["SelectSlices", "SelectSlicesD", "SelectSlicesDict", "SelectSlicesd"]


class SelectSlices(SliceSelection):
    """Keep the slices that a rule chooses.

    With ``max_slices``, the rule's own parameter is found for each volume so that at most as many slices are kept; see
    :meth:`~.slice_rules.base.SliceRule.at_most`. ``meta["notes"]`` has the fields that were found, and the bounds that
    had to give way.

    ``meta["slice_rules"]`` gets one entry for each selection: the rule that chose, with the fields that were found, as
    :func:`~.slice_rules.registry.select_slice_rule` takes it. ``meta["slice_distances"]`` has what the rule measured of
    every slice of the source volume, where it measures something. Metadata and inverse: see
    :class:`~.slice_selection.SliceSelection`; ``inverse`` fills each dropped slice from its anchor after the anchor
    rule, and with zeros after any other.

    Args:
        rule: a slice rule, the name of one, or a mapping of ``name`` and fields.
        max_slices: largest number of slices, at least 1; None takes the rule as it is.
        spatial_dim: slice axis among the spatial axes, channel excluded; negative values count from the last.

    Raises:
        SettingsError: an argument is not as described, or when called: no value of the rule's parameter keeps so few.
        VolumeError: when called: see the rule.
    """

    def __init__(
        self,
        rule: SliceRule | str | Mapping[str, Any] = "anchor",
        max_slices: int | None = None,
        spatial_dim: int = -1,
    ) -> None:
        super().__init__(spatial_dim)
        if isinstance(rule, str):
            rule = select_slice_rule(rule)
        elif isinstance(rule, Mapping):
            rule = select_slice_rule(**rule)
        if not isinstance(rule, SliceRule):
            raise SettingsError(f"rule must be a slice rule, its name or its settings, got {rule!r}.")
        if max_slices is not None and (
            isinstance(max_slices, bool) or not isinstance(max_slices, int) or max_slices < 1
        ):
            raise SettingsError(f"max_slices must be an integer of at least 1, or None, got {max_slices!r}.")
        self.rule = rule
        self.max_slices = max_slices

    def kept_slices(self, image: NdarrayOrTensor) -> list[int]:
        """Return the indices of the kept slices, ascending.

        Args:
            image: channel-first volume.
        """
        return self.choose(image).kept

    def stack(self, image: NdarrayOrTensor) -> SliceStack:
        """Return the volume as slice rules see it.

        Args:
            image: channel-first volume.
        """
        return SliceStack.from_volume(image, self.slice_axis(image))

    def choose(self, image: NdarrayOrTensor) -> SliceChoice:
        """Return the rule's choice; what was found for this volume is among its notes and its ``rule``."""
        stack = self.stack(image)
        rule = self.rule if self.max_slices is None else self.rule.at_most(stack, self.max_slices)
        choice = rule.choose(stack)
        notes = choice.notes if self.max_slices is None else (*self._found(rule, stack, choice), *choice.notes)
        return SliceChoice(choice.kept, choice.distances, notes, rule)

    def apply(self, img: NdarrayOrTensor, choice: SliceChoice, measured: bool) -> torch.Tensor:
        """Keep the slices of a choice, and record the rule that made it."""
        out = super().apply(img, choice, measured)
        if isinstance(out, MetaTensor) and choice.rule is not None:
            out.meta["slice_rules"] = PerVolumeList(
                [*out.meta.get("slice_rules", ()), slice_rule_settings(choice.rule)]
            )
        return out

    def fill(self, image: torch.Tensor, kept: Sequence[int], depth: int, axis: int) -> torch.Tensor:
        """Fill dropped slices from their anchors where the anchor rule chose, else with zeros."""
        if isinstance(self.rule, AnchorRule):
            return fill_from_anchor(image, kept, depth, axis)
        return super().fill(image, kept, depth, axis)

    def _found(self, rule: SliceRule, stack: SliceStack, choice: SliceChoice) -> tuple[str, ...]:
        """What was set for this volume, in a sentence."""
        before, after = slice_rule_settings(self.rule), slice_rule_settings(rule)
        changed = [
            f"{field} {_shown(value)} (was {_shown(before[field])})"
            for field, value in after.items()
            if before[field] != value
        ]
        return (
            f"At most {self.max_slices} slices were asked for: the slice rule {after['name']} keeps {len(choice.kept)} "
            f"of {stack.depth} with {', '.join(changed) or 'its own settings'}.",
        )


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


class SelectSlicesd(SliceSelectiond):
    """Dictionary-based wrapper of :class:`SelectSlices`: every key keeps the slices chosen on one of them.

    Args:
        keys: volumes of equal depth, e.g. image and label.
        rule: see :class:`SelectSlices`.
        max_slices: see :class:`SelectSlices`.
        spatial_dim: see :class:`SelectSlices`.
        ref_key: key on which slices are chosen; the first of ``keys`` by default.
        allow_missing_keys: skip absent keys; the reference key may be absent only where all are.
    """

    array_form: SelectSlices

    def __init__(
        self,
        keys: KeysCollection,
        rule: SliceRule | str | Mapping[str, Any] = "anchor",
        max_slices: int | None = None,
        spatial_dim: int = -1,
        ref_key: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, SelectSlices(rule, max_slices, spatial_dim), ref_key, allow_missing_keys)


SelectSlicesD = SelectSlicesDict = SelectSlicesd
