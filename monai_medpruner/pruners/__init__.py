# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Tokens to fewer tokens: pure tensor code that knows neither MONAI nor transformers."""

from __future__ import annotations

from monai_medpruner.pruners.attention import attention_received, class_attention
from monai_medpruner.pruners.average_pooling import AveragePoolingPruner
from monai_medpruner.pruners.base import PrunedTokens, SliceTokens, TokenPruner
from monai_medpruner.pruners.budget import TokenBudget, slice_share
from monai_medpruner.pruners.cdpruner import CDPrunerPruner
from monai_medpruner.pruners.divprune import DivPrunePruner
from monai_medpruner.pruners.hiprune import HiPrunePruner
from monai_medpruner.pruners.local_contrast import LocalContrastPruner
from monai_medpruner.pruners.medpruner_released import MedPrunerReleasedPruner
from monai_medpruner.pruners.merging import merge_contextual
from monai_medpruner.pruners.nucleus import NucleusPruner, nucleus
from monai_medpruner.pruners.random_tokens import RandomTokensPruner
from monai_medpruner.pruners.rare_tokens import RareTokensPruner
from monai_medpruner.pruners.registry import PRUNERS, find_pruner, pruner_names, pruner_settings, select_pruner
from monai_medpruner.pruners.signals import (
    AnchorSlices,
    BlockSignal,
    ClassAttention,
    HiddenStates,
    Keys,
    LocalContrast,
    QuestionEmbedding,
    ReceivedAttention,
    Signal,
    SlicePositions,
)
from monai_medpruner.pruners.visionzip import VisionZipPruner

__all__ = [
    "PRUNERS",
    "AnchorSlices",
    "AveragePoolingPruner",
    "BlockSignal",
    "CDPrunerPruner",
    "ClassAttention",
    "DivPrunePruner",
    "HiPrunePruner",
    "HiddenStates",
    "Keys",
    "LocalContrast",
    "LocalContrastPruner",
    "MedPrunerReleasedPruner",
    "NucleusPruner",
    "PrunedTokens",
    "QuestionEmbedding",
    "RandomTokensPruner",
    "RareTokensPruner",
    "ReceivedAttention",
    "Signal",
    "SlicePositions",
    "SliceTokens",
    "TokenBudget",
    "TokenPruner",
    "VisionZipPruner",
    "attention_received",
    "class_attention",
    "find_pruner",
    "merge_contextual",
    "nucleus",
    "pruner_names",
    "pruner_settings",
    "select_pruner",
    "slice_share",
]
