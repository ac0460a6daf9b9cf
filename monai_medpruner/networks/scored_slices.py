# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices between the encoder and the pruner, of one batch or of a whole volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch.nn.utils.rnn import pad_sequence

from monai_medpruner.networks.families import EncodedSlices
from monai_medpruner.pruners import Signal, TokenPruner
from monai_medpruner.results import StageTimes

__all__ = ["ScoredSlices"]


@dataclass(frozen=True, eq=False)
class ScoredSlices:
    """S encoded slices and the signals that their pruners asked for.

    Args:
        encoded: the encoder's output.
        grids: rows and columns of each slice's tokens.
        patches_per_token: image patches that form one token.
        signals: per signal ``(S, M, ...)``, padded, or ``(S,)``; see :mod:`monai_medpruner.pruners.signals`.
        seconds: of the stages "encode" and "select", the signals being part of the latter.
        inside: per slice, bool ``(N_i,)`` on the CPU: the tokens that were encoded; tokens, rows and signals of the
            others are 0. None where all were.
    """

    encoded: EncodedSlices
    grids: list[tuple[int, int]]
    patches_per_token: int
    signals: Mapping[Signal, torch.Tensor] = field(default_factory=dict)
    seconds: StageTimes = field(default_factory=StageTimes)
    inside: list[torch.Tensor] | None = None

    def needed_by(self, pruners: Sequence[TokenPruner | None]) -> ScoredSlices:
        """The same slices without what none of these pruners needs, so that it can be freed."""
        wanted = frozenset().union(*(pruner.signals for pruner in pruners if pruner is not None))
        signals = {signal: values for signal, values in self.signals.items() if signal in wanted}
        encoded = self.encoded
        if not any(pruner is not None and pruner.merge_space == "encoder" for pruner in pruners):
            encoded = replace(encoded, encoder_tokens=[])
        return replace(self, encoded=encoded, signals=signals)

    @classmethod
    def joined(cls, batches: Sequence[ScoredSlices]) -> ScoredSlices:
        """The slices of all batches as one, in their order; signals are padded to the longest slice of all.

        Args:
            batches: at least one, all with the same signals.
        """
        parts = [batch.encoded for batch in batches]
        layers = zip(*(part.deepstack_features for part in parts), strict=True)
        encoded = EncodedSlices(
            tokens=[one for part in parts for one in part.tokens],
            deepstack_features=[[one for rows in layer for one in rows] for layer in layers],
            encoder_tokens=[one for part in parts for one in part.encoder_tokens],
        )
        seconds = StageTimes()
        for batch in batches:
            seconds.add(batch.seconds)
        return cls(
            encoded=encoded,
            grids=[grid for batch in batches for grid in batch.grids],
            patches_per_token=batches[0].patches_per_token,
            signals={signal: _joined([batch.signals[signal] for batch in batches]) for signal in batches[0].signals},
            seconds=seconds,
            inside=None if batches[0].inside is None else [one for batch in batches for one in batch.inside or ()],
        )


def _joined(batches: list[torch.Tensor]) -> torch.Tensor:
    """Stack batches ``(S_i, M_i, ...)``, padded with zeros to the longest M_i, or ``(S_i,)``."""
    if batches[0].ndim == 1:
        return torch.cat(batches)
    return pad_sequence([row for batch in batches for row in batch], batch_first=True)
