# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Measures on predictions: a row of numbers per item, and a value per set of items computed from summed rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from monai_medpruner.metrics.answer_rules import ANSWER_RULES, HEADLINE_RULE, answer_is_correct
from monai_medpruner.metrics.choice_parser import parse_choice
from monai_medpruner.metrics.predictions import Prediction
from monai_medpruner.metrics.protocols import EvaluationProtocol
from monai_medpruner.metrics.text_scorer import TextScorer

__all__ = ["Measure", "protocol_measures"]


@dataclass(frozen=True)
class Measure(ABC):
    """A named value of a set of items, in percent.

    Args:
        name: the name under which the value is reported.
    """

    name: str

    @abstractmethod
    def row(self, item: Prediction) -> list[float] | None:
        """Return the numbers of an item; None if the item does not count."""

    def values(self, sums: np.ndarray) -> np.ndarray:
        """Return the values of sets of items; by default the mean of the first column.

        Args:
            sums: (..., width + 1), the summed rows, with the number of items in the last column.

        Returns:
            (...), in percent; NaN for sets without items.
        """
        with np.errstate(invalid="ignore"):
            return np.asarray(100 * sums[..., 0] / sums[..., -1])


@dataclass(frozen=True)
class AccuracyMeasure(Measure):
    """Accuracy on closed questions under an answer rule."""

    rule: str

    def row(self, item: Prediction) -> list[float] | None:
        """1 if correct, else 0; failed items are 0."""
        if item.reference_choice is None:
            return None
        return [float(answer_is_correct(item.answer, item.reference_choice, item.choices, self.rule))]


@dataclass(frozen=True)
class UnparsedMeasure(Measure):
    """Share of closed questions whose answer names no choice; failed items, which have no answer, count as 0."""

    def row(self, item: Prediction) -> list[float] | None:
        """1 if the answer names no choice, else 0."""
        if item.reference_choice is None:
            return None
        return [float(not item.failed and parse_choice(item.answer, item.choices) is None)]


@dataclass(frozen=True)
class TextMeasure(Measure):
    """A text metric on open questions and reports, with the text preparation of a protocol."""

    scorer: TextScorer
    protocol: EvaluationProtocol

    def row(self, item: Prediction) -> list[float] | None:
        """The score of the item; for a corpus metric, its statistics."""
        if item.reference_choice is not None:
            return None
        prediction = self.protocol.prepare_prediction(item.answer)
        if self.protocol.drops_empty and not prediction.strip():
            return None
        statistics = self.scorer.statistics(prediction, self.protocol.prepare(item.reference))
        return list(statistics) if self.scorer.of_corpus else [self.scorer.value(statistics)]

    def values(self, sums: np.ndarray) -> np.ndarray:
        """The mean score; for a corpus metric, the score of the summed statistics."""
        if not self.scorer.of_corpus:
            return super().values(sums)
        rows = sums.reshape(-1, sums.shape[-1])
        scores = [self.scorer.value(row[:-1].tolist()) if row[-1] else np.nan for row in rows]
        return 100 * np.array(scores).reshape(sums.shape[:-1])


def protocol_measures(protocol: EvaluationProtocol) -> list[Measure]:
    """All measures: accuracy under the headline rule and every named rule, the unparsed rate, the text metrics."""
    return [
        AccuracyMeasure("accuracy", HEADLINE_RULE),
        *(AccuracyMeasure(f"accuracy_{rule}", rule) for rule in ANSWER_RULES),
        UnparsedMeasure("unparsed"),
        *(TextMeasure(scorer.name, scorer, protocol) for scorer in protocol.scorers),
    ]
