# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Rare tokens: those that look like no other token of the volume."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners.base import SliceTokens, TokenPruner
from monai_medpruner.pruners.fixed_share import check_keep_ratio, highest_of_volume, in_steps
from monai_medpruner.pruners.signals import Signal

__all__ = ["RareTokensPruner"]

# similarities that are held at once, float32: 64 MB
_PAIRS_AT_ONCE = 2**24


@dataclass(frozen=True)
class RareTokensPruner(TokenPruner):
    """Keep the tokens that lie farthest from their nearest neighbors among all tokens of the volume.

    Normal anatomy repeats from slice to slice; a small finding does not. With the tokens' values centered and scaled
    to length 1, the score of a token is its mean Euclidean distance, in ``[0, 2]``, to the ``neighbors`` nearest
    other tokens of all slices that are encoded together. The highest scores of the volume are kept, and at least one
    token of each slice. No attention is read, so the encoder runs as it is. ``docs/evidence_findings.md`` has the
    comparison with other pruners.

    All pairs of N tokens of width C are compared, in blocks: ``2 N² C`` operations, so that the time grows with the
    square of the number. The encoder's output of all slices stays in memory until the last is encoded.

    With ``merge_space`` "encoder", distances are those of the tokens before projection.

    Args:
        contextual_ratio: contextual tokens as a share of a slice's tokens, in ``[0, 1]``; 0, the default, turns merging
            off.
        keep_ratio: kept tokens as a share of the volume's tokens, in ``(0, 1]``, rounded up.
        neighbors: number of nearest tokens, at least 1. More than one, so that a finding on two neighboring slices
            still counts as rare.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    contextual_ratio: float = 0.0
    keep_ratio: float = 0.25
    neighbors: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_keep_ratio(self.keep_ratio)
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
        with torch.autocast(slices.tokens.device.type, enabled=False):
            rows = slices.tokens[slices.valid].float()
            directions = normalize(rows - rows.mean(dim=1, keepdim=True), dim=1)
            score = torch.zeros(slices.valid.shape, device=rows.device)
            score[slices.valid] = _to_nearest(directions, self.neighbors)
        return score

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of the volume's highest scores, and of the highest of each slice."""
        return highest_of_volume(score, self.keep_ratio, slices.valid)


def _to_nearest(directions: torch.Tensor, neighbors: int) -> torch.Tensor:
    """Mean distance of each row, of length 1, to the nearest others, ``(N,)``; 0 for a row without others."""
    count = len(directions)
    neighbors = min(neighbors, count - 1)
    if neighbors < 1:
        return directions.new_zeros(count)
    step = max(1, _PAIRS_AT_ONCE // count)
    means = []
    for start in range(0, count, step):
        similarity = directions[start : start + step] @ directions.T
        similarity.diagonal(start).fill_(-torch.inf)  # itself
        nearest = similarity.topk(neighbors, dim=1).values
        # in steps, so that copies of a token have the same score whatever the block
        means.append((2 - 2 * in_steps(nearest)).clamp(min=0).sqrt().mean(dim=1))
    return torch.cat(means)
