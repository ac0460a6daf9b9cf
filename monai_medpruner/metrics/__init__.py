# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Answers and reports to numbers, each under the name of the protocol that it follows."""

from __future__ import annotations

from monai_medpruner.metrics.answer_rules import ANSWER_RULES, HEADLINE_RULE, answer_is_correct
from monai_medpruner.metrics.bleu import BleuScorer
from monai_medpruner.metrics.choice_parser import parse_choice
from monai_medpruner.metrics.comparison import compare, compare_command, mcnemar
from monai_medpruner.metrics.cumulative import (
    AnswerAccuracyMetric,
    BleuMetric,
    MeteorMetric,
    RougeMetric,
    TextScorerMetric,
)
from monai_medpruner.metrics.meteor import MeteorScorer
from monai_medpruner.metrics.predictions import Prediction, read_predictions
from monai_medpruner.metrics.protocols import PROTOCOLS, EvaluationProtocol, find_protocol
from monai_medpruner.metrics.radiology import RadEvalScorer
from monai_medpruner.metrics.rouge import RougeScorer
from monai_medpruner.metrics.run_report import run_report
from monai_medpruner.metrics.scoring import score, score_command
from monai_medpruner.metrics.text_scorer import TextScorer
from monai_medpruner.metrics.tokenization import TOKENIZERS, tokenize
from monai_medpruner.metrics.wordnet import find_wordnet, prepare_wordnet

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
    "RadEvalScorer",
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
