# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What a text metric is: whole-number statistics of one pair of texts, and a score made of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["TextScorer"]


@dataclass(frozen=True)
class TextScorer(ABC):
    """Scores predictions against references by way of sufficient statistics.

    Statistics of one pair are a short row of numbers. Scores of a set are made of its rows alone, so ranks and shards
    exchange numbers, never text, and any split of the set gives the same score to the last digit.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The name under which the score is reported."""

    @property
    @abstractmethod
    def width(self) -> int:
        """How many statistics a pair has."""

    @property
    def whole_numbers(self) -> bool:
        """Whether the statistics are integers; else float64."""
        return True

    @property
    def of_corpus(self) -> bool:
        """Whether a set's score is made of summed statistics; else it is the mean of the pairs' scores."""
        return False

    @abstractmethod
    def statistics(self, prediction: str, reference: str) -> list[int] | list[float]:
        """The statistics of one pair, ``width`` numbers."""

    @abstractmethod
    def value(self, statistics: Sequence[float]) -> float:
        """The score, in [0, 1], of one row of statistics or, for a corpus score, of summed rows."""

    def score(self, prediction: str, reference: str) -> float:
        """The score of one pair, in [0, 1]."""
        return self.value(self.statistics(prediction, reference))

    def aggregate(self, rows: Sequence[Sequence[float]]) -> float:
        """The score of a set, in [0, 1]; NaN of an empty one.

        Args:
            rows: the statistics of its pairs, in any order: sums are exact, so that order has no say.
        """
        if not rows:
            return math.nan
        if self.of_corpus:
            return self.value([math.fsum(column) for column in zip(*rows, strict=True)])
        return math.fsum(self.value(row) for row in rows) / len(rows)
