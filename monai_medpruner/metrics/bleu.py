# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""BLEU, computed from NLTK's n-gram counts."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics.text_scorer import TextScorer
from monai_medpruner.metrics.tokenization import TOKENIZERS, tokenize

__all__ = ["BleuScorer"]

_METHOD1_EPSILON = 0.1


@dataclass(frozen=True)
class BleuScorer(TextScorer):
    """BLEU of orders 1 to ``order`` with equal weights (Papineni et al., 2002), identical to NLTK's.

    Statistics: matched n-grams per order, total n-grams per order, tokens in the prediction, tokens in the reference.

    Args:
        order: the highest order, 1 to 4.
        tokenizer: one of :data:`~monai_medpruner.metrics.tokenization.TOKENIZERS`.
        lowercase: whether to ignore case.
        smoothing: "none", or "method1" (Chen and Cherry, 2014): 0.1 replaces a match count of 0.
        corpus: if True, the score of a set is computed from summed counts; otherwise it is the mean of sentence scores.

    Raises:
        SettingsError: an argument is outside its allowed values.
    """

    order: int = 4
    tokenizer: str = "split"
    lowercase: bool = False
    smoothing: str = "none"
    corpus: bool = False

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3, 4):
            raise SettingsError(f"BLEU's order must be 1, 2, 3 or 4, got {self.order}")
        if self.smoothing not in ("none", "method1"):
            raise SettingsError(f"BLEU's smoothing must be 'none' or 'method1', got {self.smoothing!r}")
        if self.tokenizer not in TOKENIZERS:
            raise SettingsError(f"unknown tokenizer {self.tokenizer!r}; expected one of: {', '.join(TOKENIZERS)}")

    @property
    def name(self) -> str:
        """Name with the order, from "bleu-1" to "bleu-4"."""
        return f"bleu-{self.order}"

    @property
    def width(self) -> int:
        """Two numbers per order and the two lengths."""
        return 2 * self.order + 2

    @property
    def of_corpus(self) -> bool:
        """The value of ``corpus``."""
        return self.corpus

    def statistics(self, prediction: str, reference: str) -> list[int]:
        """Matches per order, n-grams per order (at least 1, as in NLTK), and both lengths in tokens."""
        # imported here because NLTK takes a second, which listing the protocols should not cost
        from nltk.translate.bleu_score import modified_precision

        if self.lowercase:
            prediction, reference = prediction.lower(), reference.lower()
        hypothesis, target = tokenize(prediction, self.tokenizer), tokenize(reference, self.tokenizer)
        precisions = [modified_precision([target], hypothesis, order) for order in range(1, self.order + 1)]
        matches = [precision.numerator for precision in precisions]
        totals = [precision.denominator for precision in precisions]
        return [*matches, *totals, len(hypothesis), len(target)]

    def value(self, statistics: Sequence[float]) -> float:
        """BLEU from counts; 0 if no token matches."""
        from nltk.translate.bleu_score import brevity_penalty

        matches, totals = statistics[: self.order], statistics[self.order : 2 * self.order]
        hypothesis_length, reference_length = statistics[-2:]
        if matches[0] == 0:
            return 0.0
        logarithms = []
        for matched, total in zip(matches, totals, strict=True):
            if matched:
                precision = matched / total
            else:
                # the values with which NLTK's method0 and method1 replace 0
                precision = _METHOD1_EPSILON / total if self.smoothing == "method1" else sys.float_info.min
            logarithms.append(math.log(precision) * (1 / self.order))
        return float(brevity_penalty(reference_length, hypothesis_length) * math.exp(math.fsum(logarithms)))
