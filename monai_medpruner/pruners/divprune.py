# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""DivPrune: the most diverse tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monai_medpruner.pruners.base import SliceTokens
from monai_medpruner.pruners.fixed_share import FixedSharePruner, cosine_similarity
from monai_medpruner.pruners.signals import Signal

__all__ = ["DivPrunePruner"]


@dataclass(frozen=True)
class DivPrunePruner(FixedSharePruner):
    """Keep tokens that lie far from one another, whatever attention they get.

    DivPrune (Alvar et al., CVPR 2025, arXiv 2503.02175) poses max-min diversity on the cosine distance of tokens, and
    solves it greedily: first the token that is farthest from its nearest neighbor, then always the one that is farthest
    from the nearest of those that are chosen already. Deviations from the paper and its released code:

    - Each slice is an image by itself; the code takes all crops of an image together.
    - A token is chosen once. The code may name one again where nothing but copies of chosen tokens is left.
    - Distances are compared in steps of 2^-16, so that copies tie and the first is taken, whatever the batch.
    - The number of kept tokens is rounded down; the code rounds to the nearest number.

    Nothing is merged, as in the source, unless ``contextual_ratio`` says so. With ``merge_space`` "encoder", distances
    are those of the tokens before projection; the source's are those of projected ones.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    @property
    def signals(self) -> frozenset[Signal]:
        """None: the tokens themselves decide."""
        return frozenset()

    def score(self, slices: SliceTokens) -> torch.Tensor:
        """Return 1 for every token: no token counts by itself."""
        return slices.valid.float()

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of the tokens that the greedy search takes."""
        valid = slices.valid
        distances = 1 - cosine_similarity(slices)
        counts = self.selected_counts(slices)
        wanted = torch.tensor(counts, device=valid.device)
        rows = torch.arange(len(counts), device=valid.device)
        chosen = torch.zeros_like(valid)
        nearest = _to_nearest_neighbor(distances, valid)
        for step in range(max(counts)):
            farthest = nearest.masked_fill(chosen | ~valid, -torch.inf).argmax(dim=1)
            chosen[rows, farthest] |= step < wanted  # a slice that has enough takes no more
            to_farthest = distances[rows, farthest]
            nearest = to_farthest if step == 0 else torch.minimum(nearest, to_farthest)
        return chosen


def _to_nearest_neighbor(distances: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Distance of each token from the nearest other one of its slice, ``(S, M)``; infinite where there is none."""
    itself = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    return distances.masked_fill(itself | ~valid[:, None], torch.inf).amin(dim=2)
