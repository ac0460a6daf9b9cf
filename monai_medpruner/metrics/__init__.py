# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Metrics for answers and reports, and the published evaluation protocols that combine them.

Importing this package, or :mod:`~monai_medpruner.metrics.protocols`, does not import torch, MONAI, NumPy or NLTK; the
names that need them are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from monai_medpruner.metrics.answer_rules import ANSWER_RULES, HEADLINE_RULE, answer_is_correct
from monai_medpruner.metrics.bleu import BleuScorer
from monai_medpruner.metrics.choice_parser import parse_choice
from monai_medpruner.metrics.meteor import MeteorScorer
from monai_medpruner.metrics.predictions import Prediction, read_predictions
from monai_medpruner.metrics.protocols import PROTOCOLS, EvaluationProtocol, find_protocol
from monai_medpruner.metrics.rouge import RougeScorer
from monai_medpruner.metrics.text_scorer import TextScorer
from monai_medpruner.metrics.tokenization import TOKENIZERS, tokenize

if TYPE_CHECKING:
    from monai_medpruner.metrics.comparison import compare, compare_command, mcnemar
    from monai_medpruner.metrics.cumulative import (
        AnswerAccuracyMetric,
        BleuMetric,
        MeteorMetric,
        RougeMetric,
        TextScorerMetric,
    )
    from monai_medpruner.metrics.reporting import run_report
    from monai_medpruner.metrics.scoring import score, score_command
    from monai_medpruner.metrics.wordnet import find_wordnet, prepare_wordnet

#: module -> the names that are imported from it on first use
_LAZY_NAMES = {
    "comparison": ("compare", "compare_command", "mcnemar"),
    "cumulative": ("AnswerAccuracyMetric", "BleuMetric", "MeteorMetric", "RougeMetric", "TextScorerMetric"),
    "reporting": ("run_report",),
    "scoring": ("score", "score_command"),
    "wordnet": ("find_wordnet", "prepare_wordnet"),
}

__all__ = [
    "ANSWER_RULES",
    "HEADLINE_RULE",
    "PROTOCOLS",
    "TOKENIZERS",
    "AnswerAccuracyMetric",
    "BleuMetric",
    "BleuScorer",
    "EvaluationProtocol",
    "MeteorMetric",
    "MeteorScorer",
    "Prediction",
    "RougeMetric",
    "RougeScorer",
    "TextScorer",
    "TextScorerMetric",
    "answer_is_correct",
    "compare",
    "compare_command",
    "find_protocol",
    "find_wordnet",
    "mcnemar",
    "parse_choice",
    "prepare_wordnet",
    "read_predictions",
    "run_report",
    "score",
    "score_command",
    "tokenize",
]


def __getattr__(name: str) -> Any:
    for module, names in _LAZY_NAMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
