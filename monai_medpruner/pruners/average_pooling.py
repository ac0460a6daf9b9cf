# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Average pooling of neighboring tokens: a baseline that ignores what the tokens hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from monai_medpruner.errors import BudgetError, SettingsError
from monai_medpruner.pruners.base import PrunedTokens, SliceTokens, TokenPruner
from monai_medpruner.pruners.signals import Signal

__all__ = ["AveragePoolingPruner"]


@dataclass(frozen=True)
class AveragePoolingPruner(TokenPruner):
    """Replace each cell of ``pool * pool`` neighboring tokens by its mean, at the place of the cell's first token.

    Cells at the right and lower edges may be smaller. A cell of one token is kept as it is. ``contextual_ratio`` has no
    effect: every token is merged into its cell. Under a limit the cells of all slices are as much larger as it takes.

    Args:
        pool: side of a cell in tokens, at least 2.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    pool: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pool < 2:
            raise SettingsError(f"pool must be at least 2, got {self.pool}")

    @property
    def signals(self) -> frozenset[Signal]:
        """None: the places of the tokens decide."""
        return frozenset()

    def __call__(self, slices: SliceTokens, max_tokens: int | None = None) -> PrunedTokens:
        """Pool the tokens, with the smallest cells from ``pool`` on that meet the limit."""
        if max_tokens is None:
            return super().__call__(slices)
        return super(AveragePoolingPruner, self._fitting(slices, max_tokens)).__call__(slices)

    def least_tokens(self, tokens: int) -> int:
        """One: a cell may hold the whole slice."""
        return min(tokens, 1)

    def score(self, slices: SliceTokens) -> torch.Tensor:
        """Return 1 for every token: their places alone decide."""
        return slices.valid.float()

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of each cell's first token."""
        return self._merged_into(slices) == torch.arange(slices.valid.shape[1], device=slices.valid.device)

    def merge(self, slices: SliceTokens, primary: torch.Tensor) -> PrunedTokens:
        """Average the tokens of each cell."""
        merged_into = self._merged_into(slices)
        place = merged_into.clamp(min=0)
        weight = slices.valid.float()
        members = torch.zeros_like(weight).scatter_add(1, place, weight)
        values = slices.tokens.float().masked_fill(~slices.valid[..., None], 0)
        sums = torch.zeros_like(values).scatter_add(1, place[..., None].expand_as(values), values)
        pooled = (sums / members.clamp(min=1)[..., None]).to(slices.tokens.dtype)
        single = primary & (members == 1)
        tokens = torch.where((primary & ~single)[..., None], pooled, slices.tokens)
        return PrunedTokens(tokens, single, primary & ~single, merged_into)

    def _fitting(self, slices: SliceTokens, max_tokens: int) -> AveragePoolingPruner:
        """The pruner with the smallest cells, from its own on, that leave no more tokens than the limit."""
        for pool in range(self.pool, max(self.pool, *map(max, slices.grids)) + 1):
            if sum(math.ceil(rows / pool) * math.ceil(columns / pool) for rows, columns in slices.grids) <= max_tokens:
                return replace(self, pool=pool)
        raise BudgetError(
            f"a budget of {max_tokens} visual tokens is too small for {len(slices.grids)} slices, which keep at least "
            "one each: raise the budget, or keep fewer slices"
        )

    def _merged_into(self, slices: SliceTokens) -> torch.Tensor:
        """Index of the first valid token of each token's cell, int64 ``(S, M)``; -1 at padding and holes."""
        device = slices.valid.device
        columns = torch.tensor([columns for _, columns in slices.grids], device=device)[:, None]
        place = torch.arange(slices.valid.shape[1], device=device)
        row, column = place // columns, place % columns
        cell = (row // self.pool * self.pool) * columns + column // self.pool * self.pool
        cell = cell.clamp(max=len(place) - 1)  # beyond the end of a shorter slice
        held = torch.where(slices.valid, place, len(place))
        first = torch.full_like(cell, len(place)).scatter_reduce(1, cell, held, "amin")
        return torch.where(slices.valid, first.gather(1, cell), -1)
