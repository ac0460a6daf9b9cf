# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slice rules: which slices of a volume are worth encoding; one rule, one dataclass, one file."""

from __future__ import annotations

from monai_medpruner.transforms.slice_rules.all_slices import AllSlices
from monai_medpruner.transforms.slice_rules.anchor import AnchorRule
from monai_medpruner.transforms.slice_rules.base import SliceChoice, SliceRule, SliceStack
from monai_medpruner.transforms.slice_rules.cumulative_change import CumulativeChange
from monai_medpruner.transforms.slice_rules.evenly_spaced import EvenlySpaced
from monai_medpruner.transforms.slice_rules.evenly_spaced_mm import EvenlySpacedMm
from monai_medpruner.transforms.slice_rules.evs import EVSRule
from monai_medpruner.transforms.slice_rules.hulumed import HuluMedRule
from monai_medpruner.transforms.slice_rules.registry import (
    SLICE_RULE_GROUP,
    SLICE_RULES,
    find_slice_rule,
    select_slice_rule,
    slice_rule_names,
    slice_rule_settings,
)

__all__ = [
    "SLICE_RULES",
    "SLICE_RULE_GROUP",
    "AllSlices",
    "AnchorRule",
    "CumulativeChange",
    "EVSRule",
    "EvenlySpaced",
    "EvenlySpacedMm",
    "HuluMedRule",
    "SliceChoice",
    "SliceRule",
    "SliceStack",
    "find_slice_rule",
    "select_slice_rule",
    "slice_rule_names",
    "slice_rule_settings",
]
