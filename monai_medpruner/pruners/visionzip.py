# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""VisionZip: dominant tokens by attention, the others merged into contextual ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from monai_medpruner.pruners.base import SliceTokens
from monai_medpruner.pruners.fixed_share import FixedSharePruner, highest
from monai_medpruner.pruners.signals import BlockSignal, ClassAttention, Keys, ReceivedAttention, Signal

__all__ = ["VisionZipPruner"]


@dataclass(frozen=True)
class VisionZipPruner(FixedSharePruner):
    """Keep the tokens with the highest attention, the dominant ones, and merge the others into contextual ones.

    VisionZip (Yang et al., CVPR 2025, arXiv 2412.04467). Deviations from the paper and its released code:

    - The attention is what each token receives, as the paper has it for encoders without a class token;
      ``attention`` "class" takes the class token's. The class token itself is not kept.
    - It is read off the scoring layer, whose output the projector gets. The code reads the last layer but one for the
      same reason: LLaVA projects that layer's output.
    - The code keeps fixed numbers of tokens, 54 dominant and 10 contextual ones of 64; these are shares here.
    - Contextual tokens stay at their targets' places, where the code appends them to the dominant ones.
    - DeepStack features of a contextual token are its target's.

    Args:
        contextual_ratio: contextual tokens as a share of the kept ones, in ``[0, 1]``; 0 turns merging off. The default
            is the paper's 10 of 64.
        merge_space: what is merged: the "encoder"'s tokens before projection (as the released code does, hence the
            default) or "projected" ones.
        keep_ratio: kept tokens as a share of a slice's tokens, in ``(0, 1]``, contextual ones counted, rounded down,
            and at least one token.
        attention: "received": by a token from all of its slice; "class": from the class token, which only some
            encoders have.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    contextual_ratio: float = 10 / 64
    merge_space: Literal["projected", "encoder"] = "encoder"
    attention: Literal["received", "class"] = "received"

    @property
    def signals(self) -> frozenset[Signal]:
        """The attention, and the keys where tokens are merged."""
        return frozenset({self._attention, Keys()} if self.contextual_ratio > 0 else {self._attention})

    def score(self, slices: SliceTokens) -> torch.Tensor:
        """Return the attention of each token."""
        return slices.signal(self._attention)

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of the dominant tokens."""
        return highest(score, self.selected_counts(slices), slices.valid)

    @property
    def _attention(self) -> BlockSignal:
        return ClassAttention() if self.attention == "class" else ReceivedAttention()
