# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slice rules by name: those of this package, and those that other packages declare as entry points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_medpruner.plugins import Plugins
from monai_medpruner.transforms.slice_rules.all_slices import AllSlices
from monai_medpruner.transforms.slice_rules.anchor import AnchorRule
from monai_medpruner.transforms.slice_rules.base import SliceRule
from monai_medpruner.transforms.slice_rules.cumulative_change import CumulativeChange
from monai_medpruner.transforms.slice_rules.evenly_spaced import EvenlySpaced
from monai_medpruner.transforms.slice_rules.evenly_spaced_mm import EvenlySpacedMm
from monai_medpruner.transforms.slice_rules.evs import EVSRule
from monai_medpruner.transforms.slice_rules.hulumed import HuluMedRule

__all__ = [
    "SLICE_RULES",
    "SLICE_RULE_GROUP",
    "find_slice_rule",
    "select_slice_rule",
    "slice_rule_names",
    "slice_rule_settings",
]

#: every slice rule of this package by the name that configurations use; a new one adds its line here
SLICE_RULES: dict[str, type[SliceRule]] = {
    "anchor": AnchorRule,
    "evenly_spaced": EvenlySpaced,
    "evenly_spaced_mm": EvenlySpacedMm,
    "cumulative_change": CumulativeChange,
    "evs": EVSRule,
    "hulumed": HuluMedRule,
    "all": AllSlices,
}

#: the entry-point group under which another package declares its slice rules, ``name = "module:Class"``
SLICE_RULE_GROUP = "monai_medpruner.slice_rules"

_PLUGINS = Plugins("slice rule", SliceRule, SLICE_RULES, SLICE_RULE_GROUP)  # type: ignore[type-abstract]


def slice_rule_names() -> list[str]:
    """The names of all slice rules, sorted; those of entry points are listed without being loaded."""
    return _PLUGINS.names()


def find_slice_rule(name: str) -> type[SliceRule]:
    """Return the slice rule of a name; one of this package comes before an entry point of the same name.

    Raises:
        SettingsError: no rule has that name, several entry points have it, or the entry point cannot be loaded.
    """
    return _PLUGINS.find(name)


def select_slice_rule(name: str, rules: Mapping[str, SliceRule] | None = None, **fields_: Any) -> SliceRule:
    """Choose a slice rule by name and set some of its fields.

    The text "none" as a field's value, which is how a command line writes it, becomes None.

    Args:
        name: one of :func:`slice_rule_names`.
        rules: rules that are made already, by name; one that is not among them is made with its defaults.
        fields_: fields of the rule's dataclass that are to have another value.

    Raises:
        SettingsError: no rule has that name, this one has no such field, or a value lies outside its range.
    """
    return _PLUGINS.select(name, rules, fields_)


def slice_rule_settings(rule: SliceRule) -> dict[str, Any]:
    """A rule's name and fields, as JSON holds them and :func:`select_slice_rule` takes them."""
    return _PLUGINS.settings(rule)
