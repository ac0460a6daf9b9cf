# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The shape of a pruner: score the tokens of a slice, select some, merge the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from monai_medpruner.errors import BudgetError, SettingsError
from monai_medpruner.field_types import check_field_types
from monai_medpruner.pruners.budget import limit_by_score
from monai_medpruner.pruners.merging import merge_contextual
from monai_medpruner.pruners.signals import Keys, QuestionEmbedding, ReceivedAttention, Signal

__all__ = ["PrunedTokens", "SliceTokens", "TokenPruner"]


@dataclass(frozen=True, eq=False)
class SliceTokens:
    """The visual tokens of S slices, as one padded batch.

    Args:
        tokens: shape ``(S, M, C)``, M being the tokens of the longest slice; projected ones, or the encoder's.
        valid: bool mask ``(S, M)``, False at padding, and at tokens that were not encoded, anywhere in the grid.
        grids: rows and columns of each slice's tokens, S pairs; token j lies at row ``j // columns``.
        signals: what else the pruner asked for; see :mod:`monai_medpruner.pruners.signals` for the shapes. Values at
            padding mean nothing.
        patches_per_token: image patches that form one token, hence patches in a slice = tokens times this.
        numbers: of the slices among those that are encoded, counted from 0; None where the batch holds them all.
    """

    tokens: torch.Tensor
    valid: torch.Tensor
    grids: Sequence[tuple[int, int]]
    signals: Mapping[Signal, torch.Tensor] = field(default_factory=dict)
    patches_per_token: int = 1
    numbers: Sequence[int] | None = None

    def signal(self, signal: Signal) -> torch.Tensor:
        """Return a signal.

        Raises:
            SettingsError: it was not computed, because no pruner lists it.
        """
        if signal not in self.signals:
            there = ", ".join(map(repr, self.signals)) or "no signal"
            raise SettingsError(
                f"{signal!r} was not computed for these slices, only {there}: a pruner must list what it needs in its "
                "signals"
            )
        return self.signals[signal]


@dataclass(frozen=True, eq=False)
class PrunedTokens:
    """What is left of :class:`SliceTokens`.

    Args:
        tokens: shape ``(S, M, C)``; rows that are neither primary nor contextual mean nothing.
        primary: bool mask ``(S, M)`` of the selected tokens.
        contextual: bool mask ``(S, M)`` of the tokens that others were merged into.
        merged_into: int64 ``(S, M)``, index of the token that carries each one now; -1 where it vanished or is padding.
        dropped: bool ``(S,)``, slices that a slice filter in the pruner dropped, all but one token; None for a pruner
            without one.
    """

    tokens: torch.Tensor
    primary: torch.Tensor
    contextual: torch.Tensor
    merged_into: torch.Tensor
    dropped: torch.Tensor | None = None

    @property
    def keep(self) -> torch.Tensor:
        """Bool mask ``(S, M)`` of the tokens that reach the language model."""
        return self.primary | self.contextual


@dataclass(frozen=True)
class TokenPruner(ABC):
    """Base class of all pruners: one method is one dataclass in one file.

    A subclass says which tokens to select in :meth:`select`; it may change :meth:`score` and :meth:`merge`.

    Args:
        contextual_ratio: contextual tokens as a share of a slice's tokens, in ``[0, 1]``; 0 turns merging off.
            The default is the paper's.
        merge_space: what is merged: "projected" tokens (as the released code does, hence the default) or the
            "encoder"'s before projection (as the paper writes).

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    contextual_ratio: float = 0.05
    merge_space: Literal["projected", "encoder"] = "projected"

    @property
    def signals(self) -> frozenset[Signal]:
        """What the pruner needs besides the tokens; nothing else is computed. It may depend on the fields.

        By default the attention that tokens receive, by which :meth:`score` scores, and the keys, by which
        :meth:`merge` measures similarity.
        """
        return frozenset({ReceivedAttention(), Keys()})

    @property
    def needs_question(self) -> bool:
        """Whether the tokens that are kept depend on the question, so that each question is pruned for."""
        return any(isinstance(signal, QuestionEmbedding) for signal in self.signals)

    @property
    def whole_volume(self) -> bool:
        """Whether the tokens of a slice are chosen by what other slices hold, so that all must be scored first.

        Such a pruner is called once, with all slices that are encoded together; any other one batch by batch.
        """
        return False

    @property
    def least_selected(self) -> int:
        """Tokens that :meth:`limit` leaves selected in each slice, at least 1; all of a slice that has fewer."""
        return 1

    def contextual_count(self, tokens: int) -> int:
        """Contextual tokens that :meth:`merge` makes of a slice, where as many tokens are not selected.

        Where fewer are left, these stay as they are, so that all of the slice is kept.

        Args:
            tokens: of the slice before pruning.
        """
        return max(int(tokens * self.contextual_ratio), 1) if self.contextual_ratio else 0

    def least_tokens(self, tokens: int) -> int:
        """Fewest tokens that a slice can be pruned to under a limit, contextual ones included.

        Args:
            tokens: of the slice before pruning.
        """
        return min(tokens, self.least_selected + self.contextual_count(tokens))

    def __post_init__(self) -> None:
        check_field_types(self)
        if not 0 <= self.contextual_ratio <= 1:
            raise SettingsError(f"contextual_ratio must lie in [0, 1], got {self.contextual_ratio}")

    def __call__(self, slices: SliceTokens, max_tokens: int | None = None) -> PrunedTokens:
        """Score, select and merge the tokens of S slices; each slice as if it were alone, unless `whole_volume`.

        Args:
            slices: to prune.
            max_tokens: limit for the tokens that are kept of all slices together, contextual ones included; with it,
                what is kept of a slice depends on the others. None is no limit.

        Raises:
            SettingsError: a signal that the pruner needs is missing.
            BudgetError: the slices keep more than ``max_tokens`` at the least.
        """
        if missing := self.signals - set(slices.signals):
            needed = ", ".join(sorted(map(repr, missing)))
            raise SettingsError(f"{type(self).__name__} needs {needed}, which was not computed for these slices")
        score = self.score(slices)
        primary = self.select(score, slices) & slices.valid
        if max_tokens is None:
            return self.merge(slices, primary)
        pruned = self.merge(slices, self.limit(score, primary, slices, max_tokens))
        if (kept := int(pruned.keep.sum())) > max_tokens:
            raise BudgetError(
                f"{type(self).__name__} keeps {kept} tokens, more than the limit of {max_tokens}: its limit and "
                "contextual_count must say what its merge makes"
            )
        return pruned

    def score(self, slices: SliceTokens) -> torch.Tensor:
        """Return a score per token, float ``(S, M)``; by default the attention that it receives."""
        return slices.signal(ReceivedAttention())

    @abstractmethod
    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of the tokens to keep as they are; at least one a slice."""

    def limit(self, score: torch.Tensor, primary: torch.Tensor, slices: SliceTokens, max_tokens: int) -> torch.Tensor:
        """Thin out the selected tokens so that these and the contextual ones are not more than a limit.

        By default by :func:`~monai_medpruner.pruners.budget.limit_by_score`: the highest scores of all slices, and
        :attr:`least_selected` of each slice.

        Args:
            score: of :meth:`score`.
            primary: bool mask ``(S, M)``, of :meth:`select`.
            slices: as there.
            max_tokens: limit for all slices together.

        Raises:
            BudgetError: the slices keep more than ``max_tokens`` at the least.
        """
        counts = [self.contextual_count(rows * columns) for rows, columns in slices.grids]
        contextual = torch.tensor(counts, device=score.device)
        return limit_by_score(score, primary, slices.valid, contextual, self.least_selected, max_tokens)

    def merge(self, slices: SliceTokens, primary: torch.Tensor) -> PrunedTokens:
        """Merge the tokens that were not selected.

        By default by :func:`merge_contextual`, on the keys where these are among the signals, else on the tokens.
        """
        keys = slices.signal(Keys()) if Keys() in self.signals else slices.tokens
        tokens, contextual, merged_into = merge_contextual(
            slices.tokens, keys, primary, self.contextual_ratio, slices.valid
        )
        return PrunedTokens(tokens, primary, contextual, merged_into)
