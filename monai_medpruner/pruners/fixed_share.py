# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What pruners share that keep a fixed share of each slice's tokens, or of the volume's."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners.base import PrunedTokens, SliceTokens, TokenPruner
from monai_medpruner.pruners.budget import limit_by_score
from monai_medpruner.pruners.merging import merge_contextual
from monai_medpruner.pruners.signals import Keys

__all__ = [
    "SIMILARITY_STEP",
    "FixedSharePruner",
    "check_keep_ratio",
    "cosine_similarity",
    "highest",
    "highest_of_volume",
    "in_steps",
]

# a product this close below a whole number is that number: 0.29 * 100 is 28.999999999999996
_ROUNDING = 1e-9
#: equal tokens have similarities that differ by rounding alone, more or less by the size of the batch; in steps of
#: this, they are equals, of which the first is taken
SIMILARITY_STEP = 2.0**-16


@dataclass(frozen=True)
class FixedSharePruner(TokenPruner, ABC):
    """Base class of pruners that keep a fixed share of each slice's tokens.

    Of a slice of M tokens, ``K = max(floor(keep_ratio * M), 1)`` reach the language model. Where tokens are merged,
    ``max(floor(contextual_ratio * K), 1)`` of these are contextual ones, but at most K - 1; the others are selected.

    Args:
        contextual_ratio: contextual tokens as a share of the kept ones, in ``[0, 1]``; 0 turns merging off.
        keep_ratio: kept tokens as a share of a slice's tokens, in ``(0, 1]``, contextual ones counted, rounded down,
            and at least one token.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    contextual_ratio: float = 0.0
    keep_ratio: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_keep_ratio(self.keep_ratio)

    def kept_counts(self, slices: SliceTokens) -> list[int]:
        """Tokens of each slice that reach the language model, S numbers."""
        return [max(_floor(self.keep_ratio * rows * columns), 1) for rows, columns in slices.grids]

    def contextual_count(self, tokens: int) -> int:
        """Contextual tokens of a slice: a share of those that are kept of it, and not all of them."""
        if self.contextual_ratio == 0:
            return 0
        kept = max(_floor(self.keep_ratio * tokens), 1)
        return min(max(_floor(self.contextual_ratio * kept), 1), kept - 1)

    def contextual_counts(self, slices: SliceTokens) -> list[int]:
        """How many of these are contextual, S numbers."""
        return [self.contextual_count(rows * columns) for rows, columns in slices.grids]

    def selected_counts(self, slices: SliceTokens) -> list[int]:
        """How many of these are selected, S numbers of at least 1."""
        pairs = zip(self.kept_counts(slices), self.contextual_counts(slices), strict=True)
        return [kept - contextual for kept, contextual in pairs]

    def merge(self, slices: SliceTokens, primary: torch.Tensor) -> PrunedTokens:
        """Merge as every pruner does, into as many contextual tokens as the share leaves room for."""
        keys = slices.signal(Keys()) if Keys() in self.signals else slices.tokens
        tokens, contextual, merged_into = merge_contextual(
            slices.tokens, keys, primary, valid=slices.valid, counts=self.contextual_counts(slices)
        )
        return PrunedTokens(tokens, primary, contextual, merged_into)


def check_keep_ratio(keep_ratio: float) -> None:
    """Raise SettingsError unless a share of tokens lies in (0, 1]."""
    if not 0 < keep_ratio <= 1:
        raise SettingsError(f"keep_ratio must lie in (0, 1], got {keep_ratio}")


def highest(score: torch.Tensor, counts: Sequence[int], valid: torch.Tensor) -> torch.Tensor:
    """Return the bool mask ``(S, M)`` of the highest scores of each slice, equal ones in their order.

    Args:
        score: ``(S, M)``.
        counts: how many of each slice, S numbers.
        valid: bool mask ``(S, M)``, False at padding.
    """
    order = score.masked_fill(~valid, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    wanted = torch.tensor(counts, device=score.device)[:, None]
    chosen = torch.arange(score.shape[1], device=score.device) < wanted
    return torch.zeros_like(valid).scatter(1, order, chosen) & valid


def highest_of_volume(score: torch.Tensor, keep_ratio: float, valid: torch.Tensor) -> torch.Tensor:
    """Return the bool mask ``(S, M)`` of the highest scores of the volume, and of the highest of each slice.

    Args:
        score: ``(S, M)``.
        keep_ratio: how many, as a share of the volume's tokens, rounded up.
        valid: bool mask ``(S, M)``, False at padding.
    """
    count = max(math.ceil(keep_ratio * int(valid.sum())), len(valid))
    unmerged = torch.zeros(len(valid), dtype=torch.long, device=valid.device)
    return limit_by_score(score, valid, valid, unmerged, 1, count)


def cosine_similarity(slices: SliceTokens) -> torch.Tensor:
    """Cosine similarity of all pairs of a slice's tokens, float32 ``(S, M, M)``, in steps of :data:`SIMILARITY_STEP`.

    A token of zeros is similar to no other one.
    """
    with torch.autocast(slices.tokens.device.type, enabled=False):
        directions = normalize(slices.tokens.float().masked_fill(~slices.valid[..., None], 0), dim=-1)
        return in_steps(directions @ directions.transpose(1, 2))


def in_steps(values: torch.Tensor) -> torch.Tensor:
    """Round to multiples of :data:`SIMILARITY_STEP`."""
    return (values / SIMILARITY_STEP).round() * SIMILARITY_STEP


def _floor(product: float) -> int:
    return math.floor(product + _ROUNDING)
