# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Random tokens: the baseline that any score of tokens must beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monai_medpruner.pruners.base import SliceTokens, TokenPruner
from monai_medpruner.pruners.fixed_share import check_keep_ratio
from monai_medpruner.pruners.signals import Signal

__all__ = ["RandomTokensPruner"]


@dataclass(frozen=True)
class RandomTokensPruner(TokenPruner):
    """Keep a share of each slice's tokens, drawn at random, and merge the rest as every pruner does.

    The draw depends on the seed, the slice's number and its number of tokens alone: the same volume gives the same
    tokens, on any device, and neighboring slices keep different ones.

    Args:
        keep_ratio: share of the tokens, in ``(0, 1]``, rounded up.
        seed: of the draw.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    keep_ratio: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_keep_ratio(self.keep_ratio)

    @property
    def signals(self) -> frozenset[Signal]:
        """None: merging measures similarity on the tokens themselves."""
        return frozenset()

    def score(self, slices: SliceTokens) -> torch.Tensor:
        """Return random numbers; those of tokens that are padding are below all others."""
        score = torch.full(slices.valid.shape, -1.0)
        for index, (rows, columns) in enumerate(slices.grids):
            length = rows * columns
            number = index if slices.numbers is None else slices.numbers[index]
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            score[index, :length] = torch.rand(length, generator=generator)
        return score.to(slices.valid.device)

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of the share with the highest scores."""
        count = (slices.valid.sum(1, keepdim=True) * self.keep_ratio).ceil()
        score = score.masked_fill(~slices.valid, -1)  # tokens that were not encoded have a number, too
        return score.argsort(dim=1, descending=True).argsort(dim=1) < count
