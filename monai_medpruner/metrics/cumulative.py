# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The metrics as MONAI cumulative metrics, for evaluators and distributed runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from monai.utils import evenly_divisible_all_gather

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics.answer_rules import ANSWER_RULES, HEADLINE_RULE, answer_is_correct
from monai_medpruner.metrics.bleu import BleuScorer
from monai_medpruner.metrics.meteor import MeteorScorer
from monai_medpruner.metrics.rouge import RougeScorer
from monai_medpruner.metrics.text_scorer import TextScorer
from monai_medpruner.metrics.wordnet import find_wordnet

__all__ = ["AnswerAccuracyMetric", "BleuMetric", "MeteorMetric", "RougeMetric", "TextScorerMetric"]


class StatisticsMetric(CumulativeIterationMetric):
    """Buffers one row of statistics per item; ranks exchange the rows, and every rank computes the same score.

    A rank without items takes part in the exchange as well.

    Args:
        width: numbers per row.
        dtype: int64 or float64.
    """

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.width = width
        self.dtype = dtype

    def _rows(self, rows: Sequence[Sequence[float]]) -> torch.Tensor:
        return torch.tensor(rows, dtype=self.dtype).reshape(-1, self.width)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        raise SettingsError(f"{type(self).__name__} takes lists of texts, not tensors")

    def extend(self, *data: Any) -> None:
        """Add a batch of rows; an empty batch adds nothing."""
        if len(data[0]):
            super().extend(*data)

    def _sync(self) -> None:
        # MONAI's _sync returns early if nothing was added, and the other ranks would wait forever
        if self._buffers is None and not self._synced:
            self._synced_tensors = [evenly_divisible_all_gather(self._rows([]), concat=True)]
            self._synced = True
        super()._sync()

    def gathered_rows(self) -> list[list[float]]:
        """The rows of all items on all ranks."""
        rows: list[list[float]] = self.get_buffer().tolist()
        return rows


class TextScorerMetric(StatisticsMetric):
    """Scores predicted texts against reference texts.

    A call takes two lists of texts of equal length (None counts as an empty text, which scores 0), and returns and
    buffers a (B, S) tensor of statistics. :meth:`aggregate` returns the score over all items. Works in
    :class:`monai.handlers.ignite_metric.IgniteMetricHandler`.

    Args:
        scorer: the text metric to compute.
    """

    def __init__(self, scorer: TextScorer) -> None:
        super().__init__(scorer.width, torch.int64 if scorer.whole_numbers else torch.float64)
        self.scorer = scorer

    def _compute_list(self, y_pred: Any, y: Any = None, **kwargs: Any) -> torch.Tensor:
        if y is None or len(y_pred) != len(y):
            raise SettingsError(
                f"expected as many references as predictions ({len(y_pred)}), got {0 if y is None else len(y)}"
            )
        return self._rows([self.scorer.statistics(p or "", r or "") for p, r in zip(y_pred, y, strict=True)])

    def aggregate(self) -> torch.Tensor:
        """The score over all items on all ranks, in [0, 1], as a float64 scalar; NaN if there were no items."""
        return torch.tensor(self.scorer.aggregate(self.gathered_rows()), dtype=torch.float64)


class BleuMetric(TextScorerMetric):
    """BLEU; the arguments are those of :class:`~monai_medpruner.metrics.bleu.BleuScorer`."""

    def __init__(
        self,
        order: int = 4,
        tokenizer: str = "split",
        lowercase: bool = False,
        smoothing: str = "none",
        corpus: bool = False,
    ) -> None:
        super().__init__(BleuScorer(order, tokenizer, lowercase, smoothing, corpus))


class RougeMetric(TextScorerMetric):
    """ROUGE; the arguments are those of :class:`~monai_medpruner.metrics.rouge.RougeScorer`."""

    def __init__(
        self,
        variant: str = "1",
        definition: str = "rouge_score",
        lowercase: bool = True,
        max_characters: int | None = None,
    ) -> None:
        super().__init__(RougeScorer(variant, definition, lowercase, max_characters))


class MeteorMetric(TextScorerMetric):
    """METEOR with WordNet.

    Args:
        tokenizer: as in :class:`~monai_medpruner.metrics.meteor.MeteorScorer`.
        wordnet: as in :func:`~monai_medpruner.metrics.wordnet.find_wordnet`.

    Raises:
        SettingsError: WordNet was not found. To score without it, use :class:`TextScorerMetric` with a
            ``MeteorScorer``, whose name is then "meteor-exact-stem".
    """

    def __init__(self, tokenizer: str = "split", wordnet: str | Path | None = None) -> None:
        if (reader := find_wordnet(wordnet)) is None:
            raise SettingsError(
                "METEOR needs WordNet, and NLTK did not find it: pass its folder; prepare_wordnet makes one"
            )
        super().__init__(MeteorScorer(tokenizer, reader))


class AnswerAccuracyMetric(StatisticsMetric):
    """Accuracy on closed questions.

    A call takes a list of predicted texts and a list of the same length of mappings, each with ``answer_choice``
    (letter) and optionally ``choices`` (letter -> text), and returns and buffers a (B, 1) tensor of 0 and 1.

    Args:
        rule: one of :data:`~monai_medpruner.metrics.answer_rules.ANSWER_RULES`.

    Raises:
        SettingsError: the rule is unknown.
    """

    def __init__(self, rule: str = HEADLINE_RULE) -> None:
        if rule not in ANSWER_RULES:
            raise SettingsError(f"unknown answer rule {rule!r}; expected one of: {', '.join(ANSWER_RULES)}")
        super().__init__(1, torch.int64)
        self.rule = rule

    def _compute_list(self, y_pred: Any, y: Any = None, **kwargs: Any) -> torch.Tensor:
        if y is None or len(y_pred) != len(y):
            raise SettingsError(
                f"expected as many questions as predictions ({len(y_pred)}), got {0 if y is None else len(y)}"
            )
        return self._rows([[self._is_correct(p or "", question)] for p, question in zip(y_pred, y, strict=True)])

    def _is_correct(self, prediction: str, question: Mapping[str, Any]) -> bool:
        return answer_is_correct(prediction, question["answer_choice"], question.get("choices"), self.rule)

    def aggregate(self) -> torch.Tensor:
        """Accuracy over all items on all ranks, in [0, 1], as a float64 scalar; NaN if there were no items."""
        rows = self.gathered_rows()
        accuracy = sum(row[0] for row in rows) / len(rows) if rows else math.nan
        return torch.tensor(accuracy, dtype=torch.float64)
