# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Tokens to fewer tokens: pure tensor code that knows neither MONAI nor transformers."""

from __future__ import annotations

from monai_medpruner.pruners.attention import attention_received, class_attention
from monai_medpruner.pruners.average_pooling import AveragePoolingPruner
from monai_medpruner.pruners.base import PrunedTokens, SliceTokens, TokenPruner
from monai_medpruner.pruners.budget import TokenBudget, slice_share
from monai_medpruner.pruners.merging import merge_contextual
from monai_medpruner.pruners.nucleus import NucleusPruner, nucleus
from monai_medpruner.pruners.random_tokens import RandomTokensPruner
from monai_medpruner.pruners.registry import PRUNERS, find_pruner, pruner_names, pruner_settings, select_pruner
from monai_medpruner.pruners.signals import (
    BlockSignal,
    ClassAttention,
    HiddenStates,
    Keys,
    QuestionEmbedding,
    ReceivedAttention,
    Signal,
    SlicePositions,
)

__all__ = [
    "PRUNERS",
    "AveragePoolingPruner",
    "BlockSignal",
    "ClassAttention",
    "HiddenStates",
    "Keys",
    "NucleusPruner",
    "PrunedTokens",
    "QuestionEmbedding",
    "RandomTokensPruner",
    "ReceivedAttention",
    "Signal",
    "SlicePositions",
    "SliceTokens",
    "TokenBudget",
    "TokenPruner",
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
