# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A candidate for a pruner, measured by ``findings.py``: keep what looks like nothing else in the volume."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import layer_norm

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import SliceTokens, TokenPruner
from monai_medpruner.pruners.signals import Signal

__all__ = ["RareTokensPruner"]


@dataclass(frozen=True)
class RareTokensPruner(TokenPruner):
    """Keep the tokens that lie farthest from their nearest neighbors among all tokens of the volume.

    Anatomy repeats from slice to slice and a finding does not. The score of a token is its mean Euclidean distance to
    the ``neighbors`` nearest other tokens, all of them normalized to mean 0 and standard deviation 1. It selects under
    a budget of tokens, where every slice keeps its rarest token, and the rarest others of the volume are added;
    without a budget it keeps all. Nothing is merged by default.

    Args:
        neighbors: number of nearest tokens, at least 1.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    contextual_ratio: float = 0.0
    neighbors: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbors < 1:
            raise SettingsError(f"neighbors must be at least 1, got {self.neighbors}")

    @property
    def signals(self) -> frozenset[Signal]:
        """None: the tokens themselves decide."""
        return frozenset()

    @property
    def whole_volume(self) -> bool:
        """True: a token is compared with those of all slices."""
        return True

    def score(self, slices: SliceTokens) -> torch.Tensor:
        """Return the mean distance of each token to its nearest neighbors, float32 ``(S, M)``; 0 at padding."""
        rows = slices.tokens[slices.valid].float()
        rows = layer_norm(rows, rows.shape[-1:])
        distances = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
        nearest = distances.topk(min(self.neighbors, len(rows) - 1), largest=False).values
        score = torch.zeros(slices.valid.shape, device=rows.device)
        score[slices.valid] = nearest.mean(1)
        return score

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of all tokens; the budget selects among them."""
        return slices.valid.clone()
