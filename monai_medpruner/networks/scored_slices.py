# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices between the encoder and the pruner, of one batch or of a whole volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from monai_medpruner.errors import NonFiniteAttentionError
from monai_medpruner.networks.families import EncodedSlices, ModelFamily
from monai_medpruner.pruners import TokenPruner, attention_received

__all__ = ["ScoredSlices", "scores_and_keys"]


@dataclass
class ScoredSlices:
    """S encoded slices and the scores of their tokens.

    Args:
        encoded: what the encoder says of them.
        grids: rows and columns of each slice's tokens.
        importance: float32 ``(S, M)``, padded; None where nothing is scored.
        keys: what similarity is measured on, ``(S, M, d)``; None likewise.
    """

    encoded: EncodedSlices
    grids: list[tuple[int, int]]
    importance: torch.Tensor | None = None
    keys: torch.Tensor | None = None

    def needed_by(self, pruners: Sequence[TokenPruner]) -> ScoredSlices:
        """The same slices without the encoder's tokens where no pruner merges these, so that they can be freed."""
        if any(pruner.merge_space == "encoder" for pruner in pruners):
            return self
        return replace(self, encoded=replace(self.encoded, encoder_tokens=[]))

    @classmethod
    def joined(cls, batches: Sequence[ScoredSlices]) -> ScoredSlices:
        """The slices of all batches as one, in their order; scores are padded to the longest slice of all."""
        parts = [batch.encoded for batch in batches]
        layers = zip(*(part.deepstack_features for part in parts), strict=True)
        encoded = EncodedSlices(
            tokens=[one for part in parts for one in part.tokens],
            deepstack_features=[[one for rows in layer for one in rows] for layer in layers],
            encoder_tokens=[one for part in parts for one in part.encoder_tokens],
        )
        grids = [grid for batch in batches for grid in batch.grids]
        importance = _padded([batch.importance for batch in batches])
        return cls(encoded, grids, importance, _padded([batch.keys for batch in batches]))


def _padded(batches: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Stack batches ``(S_i, M_i, ...)``, padded with zeros to the longest M_i; None where nothing was scored."""
    rows = [row for batch in batches if batch is not None for row in batch]
    return pad_sequence(rows, batch_first=True) if rows else None


def scores_and_keys(
    family: ModelFamily, captured: list[tuple[tuple, dict[str, Any]]], grids: list[tuple[int, int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Importance ``(S, M)`` and merging keys ``(S, M, d)`` per token, padded; averaged over a token's patches.

    Args:
        family: of the model.
        captured: positional and named arguments of each call of the family's scoring attention.
        grids: rows and columns of each slice's tokens.

    Raises:
        NonFiniteAttentionError: the attention overflowed in the model's type.
    """
    pairs = [pair for args, kwargs in captured for pair in family.queries_and_keys(args, kwargs)]
    importance: list[torch.Tensor] = []
    keys: list[torch.Tensor] = []
    # slices of one size are scored together
    for _, group in groupby(zip(pairs, grids, strict=True), key=lambda item: item[1]):
        members = list(group)
        grid = members[0][1]
        query = torch.stack([pair[0] for pair, _ in members])
        key = torch.stack([pair[1] for pair, _ in members])
        importance += family.group_patches(attention_received(query, key), grid).mean(-1)
        head_mean = key.float().mean(1).transpose(-1, -2)
        keys += family.group_patches(head_mean, grid).mean(-1).transpose(-1, -2)
    scores = pad_sequence(importance, True)
    if not scores.isfinite().all():
        raise NonFiniteAttentionError(
            f"the vision encoder's attention overflowed in {str(family.model.dtype).removeprefix('torch.')}: use "
            "bfloat16 or float32"
        )
    return scores, pad_sequence(keys, True)
