# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Merging dropped tokens into a few contextual ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import normalize, one_hot

from monai_medpruner.errors import SettingsError

__all__ = ["merge_contextual"]


def merge_contextual(
    tokens: torch.Tensor,
    keys: torch.Tensor,
    keep: torch.Tensor,
    ratio: float = 0.05,
    valid: torch.Tensor | None = None,
    counts: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Merge the tokens that were not selected into a few contextual ones by bipartite matching.

    In a slice of M tokens of which R are not selected, ``n = max(floor(ratio * M), 1)`` of these become targets: with
    ``s = floor(R / n)`` the remaining tokens number 0, s, 2s, ... Every other remaining token goes to the target whose
    key has the highest cosine similarity with its own, the first of equals, and a contextual token is its target plus
    the mean of what was assigned to it (VisionZip's rule, as MedPruner uses it). It stays at the target's place in the
    sequence. Where R is smaller than n, all R remaining tokens stay as they are.

    Args:
        tokens: tokens of S slices, shape ``(S, M, C)``, padded to the longest slice.
        keys: what similarity is measured on, shape ``(S, M, d)``: keys averaged over heads and over a token's patches.
        keep: bool mask of the selected tokens, shape ``(S, M)``.
        ratio: contextual tokens as a share of a slice's tokens, in ``[0, 1]``; 0 turns merging off, so that the tokens
            that were not selected vanish.
        valid: bool mask ``(S, M)``, False at padding; all True where None.
        counts: n of each slice in place of the ratio, S numbers; of a slice with 0, nothing is merged.

    Returns:
        The tokens with the contextual ones replaced, ``(S, M, C)``; the bool mask of contextual tokens, ``(S, M)``; and
        for every token the index of the token that now carries it, int64 ``(S, M)``: itself where selected or
        contextual, its target where merged, -1 where it vanished or is padding.

    Raises:
        SettingsError: ``ratio`` lies outside ``[0, 1]``.
    """
    if not 0 <= ratio <= 1:
        raise SettingsError(f"the contextual ratio must lie in [0, 1], got {ratio}")
    valid = torch.ones_like(keep) if valid is None else valid
    keep = keep & valid
    places = torch.arange(keep.shape[1], device=keep.device).expand(keep.shape)
    merged_into = torch.where(keep, places, -1)
    remaining = valid & ~keep
    if ratio == 0 if counts is None else not any(counts):
        return tokens, torch.zeros_like(keep), merged_into

    contextual = _targets(remaining, _wanted(valid, ratio, counts))
    most = int(contextual.sum(1).max())  # the one transfer to the host
    if most == 0:
        return tokens, contextual, merged_into
    merged = remaining & ~contextual & contextual.any(1, keepdim=True)
    with torch.autocast(tokens.device.type, enabled=False):
        targets, target_of = _nearest_targets(keys.float(), contextual, most)
        result = _add_means(tokens, merged, contextual, targets, target_of)
    merged_into = torch.where(contextual, places, merged_into)
    merged_into = torch.where(merged, targets.gather(1, target_of), merged_into)
    return result, contextual, merged_into


def _nearest_targets(keys: torch.Tensor, contextual: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places of each slice's targets ``(S, n)``, padded, and which of these is nearest to each token."""
    length = contextual.shape[1]
    places = torch.arange(length, device=keys.device)
    targets = torch.where(contextual, places, length).sort(dim=1).values[:, :count]
    padding = targets == length
    targets = targets.clamp(max=length - 1)
    directions = normalize(keys, dim=-1)
    target_directions = directions.gather(1, targets[..., None].expand(-1, -1, keys.shape[-1]))
    similarity = directions @ target_directions.transpose(1, 2)
    return targets, similarity.masked_fill(padding[:, None], -torch.inf).argmax(dim=-1)


def _add_means(
    tokens: torch.Tensor,
    merged: torch.Tensor,
    contextual: torch.Tensor,
    targets: torch.Tensor,
    target_of: torch.Tensor,
) -> torch.Tensor:
    """Return the tokens, to each contextual one added the mean of the merged tokens assigned to it."""
    # a matrix product instead of an indexed add: the same sum on every run, on a GPU too
    assigned = one_hot(target_of, targets.shape[1]).float() * merged[..., None]
    # zero times what padding or an overflowed token holds need not be zero
    sums = assigned.transpose(1, 2) @ tokens.float().masked_fill(~merged[..., None], 0)
    means = sums / assigned.sum(1).clamp(min=1)[..., None]
    addition = torch.zeros(tokens.shape, dtype=torch.float32, device=tokens.device).scatter_add(
        1, targets[..., None].expand_as(means), means
    )
    return torch.where(contextual[..., None], (tokens.float() + addition).to(tokens.dtype), tokens)


def _wanted(valid: torch.Tensor, ratio: float, counts: Sequence[int] | None) -> torch.Tensor:
    """Return how many contextual tokens each slice is to have, int64 ``(S, 1)``."""
    if counts is not None:
        return torch.tensor(counts, device=valid.device)[:, None]
    return (valid.sum(1, keepdim=True).double() * ratio).floor().long().clamp(min=1)


def _targets(remaining: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the bool mask ``(S, M)`` of the remaining tokens that become contextual ones."""
    left = remaining.sum(1, keepdim=True)
    stride = left.div(wanted.clamp(min=1), rounding_mode="floor").clamp(min=1)
    rank = remaining.cumsum(1) - 1
    return remaining & (rank % stride == 0) & (rank.div(stride, rounding_mode="floor") < wanted)
