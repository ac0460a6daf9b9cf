# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Base class of text metrics: statistics of a pair of texts, and a score computed from statistics."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["TextScorer"]


@dataclass(frozen=True)
class TextScorer(ABC):
    """Scores predictions against references from sufficient statistics.

    The statistics of a pair are a short row of numbers, and the score of a set depends only on its rows. Ranks and
    shards therefore exchange numbers instead of texts, and any split of the set gives exactly the same score.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Name under which the score is reported."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of statistics per pair."""

    @property
    def whole_numbers(self) -> bool:
        """Whether the statistics are integers; otherwise they are float64."""
        return True

    @property
    def of_corpus(self) -> bool:
        """Whether the score of a set is computed from summed statistics; otherwise it is the mean of pair scores."""
        return False

    @abstractmethod
    def statistics(self, prediction: str, reference: str) -> list[int] | list[float]:
        """Return the statistics of one pair, ``width`` numbers."""

    @abstractmethod
    def value(self, statistics: Sequence[float]) -> float:
        """Return the score, in [0, 1], of one row of statistics or, for a corpus metric, of summed rows."""

    def score(self, prediction: str, reference: str) -> float:
        """Return the score of one pair, in [0, 1]."""
        return self.value(self.statistics(prediction, reference))

    def aggregate(self, rows: Sequence[Sequence[float]]) -> float:
        """Return the score of a set, in [0, 1]; NaN for an empty set.

        Args:
            rows: the statistics of the pairs. Sums are exact, so the order does not matter.
        """
        if not rows:
            return math.nan
        if self.of_corpus:
            return self.value([math.fsum(column) for column in zip(*rows, strict=True)])
        return math.fsum(self.value(row) for row in rows) / len(rows)
