# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A pruner from outside the package, in one file."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import HiddenStates, Signal, SliceTokens, TokenPruner


@dataclass(frozen=True)
class LargestNormPruner(TokenPruner):
    """Keeps the tokens of each slice whose hidden states have the largest norms, and merges nothing.

    Args:
        count: tokens that stay of each slice.
        block: whose hidden states are looked at; None for the scoring layer's.
    """

    contextual_ratio: float = 0.0
    count: int = 3
    block: int | None = None

    @property
    def signals(self) -> frozenset[Signal]:
        return frozenset({HiddenStates(self.block)})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise SettingsError(f"count must be at least 1, got {self.count}")

    def score(self, slices: SliceTokens) -> torch.Tensor:
        return slices.signal(HiddenStates(self.block)).norm(dim=-1).masked_fill(~slices.valid, -torch.inf)

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        return score.argsort(dim=1, descending=True, stable=True).argsort(dim=1) < self.count
