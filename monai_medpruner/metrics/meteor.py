# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""METEOR, by NLTK."""

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
    """Stands for WordNet where there is none: every word is its own only synonym."""

    def synsets(self, word: str) -> list[Any]:
        """No set of synonyms."""
        return []


@dataclass(frozen=True)
class MeteorScorer(TextScorer):
    """METEOR (Lavie and Agarwal, 2007; alpha 0.9, beta 3, gamma 0.5), case ignored.

    With WordNet, words match exactly, by stem, or as synonyms, and the name is "meteor". Without, synonyms are not
    known, scores are lower, and the name is "meteor-exact-stem", so that the two are never taken for one another.

    Statistics: the score, float64.

    Args:
        tokenizer: one of :data:`~monai_medpruner.metrics.tokenization.TOKENIZERS`.
        wordnet: what :func:`~monai_medpruner.metrics.wordnet.find_wordnet` gives.

    Raises:
        SettingsError: no tokenizer has that name.
    """

    tokenizer: str = "split"
    wordnet: WordNetCorpusReader | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.tokenizer not in TOKENIZERS:
            raise SettingsError(f"no tokenizer is named {self.tokenizer!r}; there are: {', '.join(TOKENIZERS)}")

    @property
    def name(self) -> str:
        """Either "meteor" or "meteor-exact-stem"."""
        return "meteor-exact-stem" if self.wordnet is None else "meteor"

    @property
    def width(self) -> int:
        """The score alone."""
        return 1

    @property
    def whole_numbers(self) -> bool:
        """No: scores."""
        return False

    def statistics(self, prediction: str, reference: str) -> list[float]:
        """The score of the pair."""
        # NLTK takes a second to import: naming a protocol must not wait for it
        from nltk.translate.meteor_score import single_meteor_score

        synonyms = _NoSynonyms() if self.wordnet is None else self.wordnet
        target, hypothesis = tokenize(reference, self.tokenizer), tokenize(prediction, self.tokenizer)
        return [float(single_meteor_score(target, hypothesis, wordnet=synonyms))]

    def value(self, statistics: Sequence[float]) -> float:
        """The score itself."""
        return statistics[0]
