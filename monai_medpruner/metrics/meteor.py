# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""METEOR, computed by NLTK."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics.text_scorer import TextScorer
from monai_medpruner.metrics.tokenization import TOKENIZERS, tokenize

if TYPE_CHECKING:
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

__all__ = ["MeteorScorer"]


class _NoSynonyms:
    """Replaces WordNet if it is not available: no word has synonyms."""

    def synsets(self, word: str) -> list[Any]:
        """Return no synonym sets."""
        return []


@dataclass(frozen=True)
class MeteorScorer(TextScorer):
    """METEOR (Lavie and Agarwal, 2007; alpha 0.9, beta 3, gamma 0.5), case ignored.

    With WordNet, words match exactly, by stem, or as synonyms, and the name is "meteor". Without WordNet, synonyms do
    not match and scores are lower. The name is then "meteor-exact-stem", because the two scores are not comparable.

    Statistics: the score, float64.

    Args:
        tokenizer: one of :data:`~monai_medpruner.metrics.tokenization.TOKENIZERS`.
        wordnet: the result of :func:`~monai_medpruner.metrics.wordnet.find_wordnet`.

    Raises:
        SettingsError: the tokenizer is unknown.
    """

    tokenizer: str = "split"
    wordnet: WordNetCorpusReader | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.tokenizer not in TOKENIZERS:
            raise SettingsError(f"unknown tokenizer {self.tokenizer!r}; expected one of: {', '.join(TOKENIZERS)}")

    @property
    def name(self) -> str:
        """Name that tells whether WordNet is used: "meteor" or "meteor-exact-stem"."""
        return "meteor-exact-stem" if self.wordnet is None else "meteor"

    @property
    def width(self) -> int:
        """One: the score."""
        return 1

    @property
    def whole_numbers(self) -> bool:
        """False: the statistic is a float score."""
        return False

    def statistics(self, prediction: str, reference: str) -> list[float]:
        """The score of the pair."""
        # imported here because NLTK takes a second, which listing the protocols should not cost
        from nltk.translate.meteor_score import single_meteor_score

        synonyms = _NoSynonyms() if self.wordnet is None else self.wordnet
        target, hypothesis = tokenize(reference, self.tokenizer), tokenize(prediction, self.tokenizer)
        return [float(single_meteor_score(target, hypothesis, wordnet=synonyms))]

    def value(self, statistics: Sequence[float]) -> float:
        """The score itself."""
        return statistics[0]
