# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""ROUGE-1 and ROUGE-L under the two definitions that published numbers use."""

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

    Two packages that both call their result ROUGE count differently:

    - "rouge" (PyPI ``rouge`` 1.0.1): sentences end at dots, tokens at spaces; a word counts once however often it
      occurs; ROUGE-L is the summary-level union of the longest common subsequences, as a set of words;
      F = 2PR / (P + R + 1e-8).
    - "rouge_score" (Google's, behind Hugging Face's ``rouge``): lower-case runs of a-z and 0-9, counted as often as
      they occur; ROUGE-L is the longest common subsequence of the whole texts; F = 2PR / (P + R).

    Statistics: overlap, tokens of the prediction, tokens of the reference.

    Args:
        variant: "1" or "l".
        definition: "rouge" or "rouge_score".
        lowercase: whether case is ignored; "rouge_score" always does.
        max_characters: the prediction is cut to so many characters; None for all.

    Raises:
        SettingsError: a value is outside of what is said here.
    """

    variant: str = "1"
    definition: str = "rouge_score"
    lowercase: bool = True
    max_characters: int | None = None

    def __post_init__(self) -> None:
        if self.variant not in ("1", "l"):
            raise SettingsError(f"ROUGE's variant is '1' or 'l', got {self.variant!r}")
        if self.definition not in ("rouge", "rouge_score"):
            raise SettingsError(f"ROUGE's definition is 'rouge' or 'rouge_score', got {self.definition!r}")

    @property
    def name(self) -> str:
        """Either "rouge-1" or "rouge-l"."""
        return f"rouge-{self.variant}"

    @property
    def width(self) -> int:
        """Overlap and two counts."""
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
        """F of precision and recall; 0 where nothing overlaps."""
        overlap, hypothesis_count, reference_count = statistics
        if not overlap:
            return 0.0
        precision, recall = overlap / hypothesis_count, overlap / reference_count
        guard = 1e-8 if self.definition == "rouge" else 0.0
        return 2 * precision * recall / (precision + recall + guard)


def _sentences(text: str) -> list[list[str]]:
    """The words of each sentence. A blank between two dots is a sentence of one empty word, as in the package."""
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]


def _set_statistics(hypothesis: list[list[str]], reference: list[list[str]], union_lcs: bool) -> list[int]:
    """Overlap and sizes of the sets of words."""
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
    """One longest common subsequence, last word first; of several, the one that the ``rouge`` package takes."""
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
