# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Answers and reports to numbers, each under the name of the protocol that it follows."""

from __future__ import annotations

from .answer_rules import ANSWER_RULES, HEADLINE_RULE, answer_is_correct
from .bleu import BleuScorer
from .choice_parser import parse_choice
from .comparison import compare, compare_command, mcnemar
from .cumulative import AnswerAccuracyMetric, BleuMetric, MeteorMetric, RougeMetric, TextScorerMetric
from .meteor import MeteorScorer
from .predictions import Prediction, read_predictions
from .protocols import PROTOCOLS, EvaluationProtocol, find_protocol
from .radiology import RadEvalScorer
from .rouge import RougeScorer
from .run_report import run_report
from .scoring import score, score_command
from .text_scorer import TextScorer
from .tokenization import TOKENIZERS, tokenize
from .wordnet import find_wordnet, prepare_wordnet

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
