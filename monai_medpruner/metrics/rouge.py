# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""ROUGE-1 and ROUGE-L in the two definitions used for published numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics.text_scorer import TextScorer

__all__ = ["RougeScorer"]

_ALPHANUMERICS = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class RougeScorer(TextScorer):
    """F score of ROUGE-1 or ROUGE-L (Lin, 2004).

    Two common packages define ROUGE differently:

    - "rouge" (PyPI ``rouge`` 1.0.1): sentences end at dots, tokens at spaces; each distinct word counts once;
      ROUGE-L is the summary-level union of the longest common subsequences, as a set of words;
      F = 2PR / (P + R + 1e-8).
    - "rouge_score" (Google's, used by Hugging Face's ``rouge``): tokens are runs of a-z and 0-9 in the lower-case text,
      counted with repetition; ROUGE-L is the longest common subsequence of the whole texts; F = 2PR / (P + R).

    Statistics: overlap, tokens in the prediction, tokens in the reference.

    Args:
        variant: "1" or "l".
        definition: "rouge" or "rouge_score".
        lowercase: whether to ignore case; "rouge_score" always does.
        max_characters: the prediction is truncated to this many characters; None for no limit.

    Raises:
        SettingsError: an argument is outside its allowed values.
    """

    variant: str = "1"
    definition: str = "rouge_score"
    lowercase: bool = True
    max_characters: int | None = None

    def __post_init__(self) -> None:
        if self.variant not in ("1", "l"):
            raise SettingsError(f"ROUGE's variant must be '1' or 'l', got {self.variant!r}")
        if self.definition not in ("rouge", "rouge_score"):
            raise SettingsError(f"ROUGE's definition must be 'rouge' or 'rouge_score', got {self.definition!r}")

    @property
    def name(self) -> str:
        """Name with the variant: "rouge-1" or "rouge-l"."""
        return f"rouge-{self.variant}"

    @property
    def width(self) -> int:
        """Three: the overlap and two counts."""
        return 3

    def statistics(self, prediction: str, reference: str) -> list[int]:
        """Overlap, count in the prediction, count in the reference."""
        if self.lowercase:
            prediction, reference = prediction.lower(), reference.lower()
        prediction = prediction[: self.max_characters]
        if self.definition == "rouge":
            return _set_statistics(_sentences(prediction), _sentences(reference), union_lcs=self.variant == "l")
        hypothesis, target = (_ALPHANUMERICS.findall(text.lower()) for text in (prediction, reference))
        if self.variant == "l":
            overlap = _lcs_lengths(target, hypothesis)[-1][-1]
        else:
            overlap = (Counter(hypothesis) & Counter(target)).total()
        return [overlap, len(hypothesis), len(target)]

    def value(self, statistics: Sequence[float]) -> float:
        """F score of precision and recall; 0 if nothing overlaps."""
        overlap, hypothesis_count, reference_count = statistics
        if not overlap:
            return 0.0
        precision, recall = overlap / hypothesis_count, overlap / reference_count
        epsilon = 1e-8 if self.definition == "rouge" else 0.0
        return 2 * precision * recall / (precision + recall + epsilon)


def _sentences(text: str) -> list[list[str]]:
    """Words of each sentence. As in ``rouge``, a space between two dots is a sentence of one empty word."""
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]


def _set_statistics(hypothesis: list[list[str]], reference: list[list[str]], union_lcs: bool) -> list[int]:
    """Overlap of the two sets of words, and their sizes."""
    hypothesis_words = {word for sentence in hypothesis for word in sentence}
    reference_words = {word for sentence in reference for word in sentence}
    if union_lcs:
        overlap = {word for target in reference for sentence in hypothesis for word in _lcs(target, sentence)}
    else:
        overlap = hypothesis_words & reference_words
    return [len(overlap), len(hypothesis_words), len(reference_words)]


def _lcs_lengths(first: Sequence[str], second: Sequence[str]) -> list[list[int]]:
    """Lengths of the longest common subsequences of all prefixes, (len(first) + 1) x (len(second) + 1)."""
    lengths = [[0] * (len(second) + 1)]
    for word in first:
        above, row = lengths[-1], [0]
        for column, other in enumerate(second):
            row.append(above[column] + 1 if word == other else max(above[column + 1], row[column]))
        lengths.append(row)
    return lengths


def _lcs(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """A longest common subsequence, last word first; among several, the one that ``rouge`` selects."""
    lengths = _lcs_lengths(first, second)
    row, column, words = len(first), len(second), []
    while row and column:
        if first[row - 1] == second[column - 1]:
            words.append(first[row - 1])
            row, column = row - 1, column - 1
        elif lengths[row - 1][column] > lengths[row][column - 1]:
            row -= 1
        else:
            column -= 1
    return words
