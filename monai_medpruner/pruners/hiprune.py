# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""HiPrune: anchors of a middle layer with their neighbors, registers of the last one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners.base import SliceTokens
from monai_medpruner.pruners.fixed_share import FixedSharePruner, highest
from monai_medpruner.pruners.signals import ReceivedAttention, Signal

__all__ = ["HiPrunePruner"]


@dataclass(frozen=True)
class HiPrunePruner(FixedSharePruner):
    """Keep tokens that a middle layer attends to, their neighbors, and tokens that the last layer attends to.

    HiPrune (Liu et al., ACL Findings 2026, arXiv 2508.00553). Of K tokens, ``round(object_share * K / 5)`` are anchors,
    those with the highest attention in the object layer, in the middle of the encoder; the four neighbors of each are
    buffers; and the highest of the others in the scoring layer, the registers, fill up to K. Attention is what a token
    receives, as in the released code. Deviations:

    - Neighbors are those of the grid. The code takes the tokens before and after an anchor in the sequence, which at a
      slice's edge lie in another row, and clamps what lies above or below the grid to the first or the last token.
    - Where anchors and buffers are more than K, the buffers with the lowest attention in the object layer go; the code
      fails.
    - A class token takes no part in the attention.
    - The number of kept tokens is rounded down; the code rounds to the nearest number.

    Nothing is merged, as in the source, unless ``contextual_ratio`` says so; contextual tokens then count among the K
    that registers fill up to.

    Args:
        contextual_ratio: contextual tokens as a share of the kept ones, in ``[0, 1]``; 0 turns merging off.
        keep_ratio: kept tokens as a share of a slice's tokens, in ``(0, 1]``, contextual ones counted, rounded down,
            and at least one token.
        object_share: share of the selected tokens that are anchors and buffers, in ``[0, 1]``. The default is the
            paper's (its α).
        object_block: the object layer: a share of the encoder's depth, above 0 and below 1, or a block's index. The
            default is the released code's for Qwen2.5-VL, layer 16 of 32; for CLIP it takes layer 9 of 24.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    object_share: float = 0.1
    object_block: int | float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.object_share <= 1:
            raise SettingsError(f"object_share must lie in [0, 1], got {self.object_share}")
        ReceivedAttention(self.object_block)  # refuses what is neither a share nor an index

    @property
    def signals(self) -> frozenset[Signal]:
        """The attention of two blocks."""
        return frozenset({ReceivedAttention(self.object_block), ReceivedAttention()})

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of anchors, buffers and registers."""
        in_object_layer = slices.signal(ReceivedAttention(self.object_block))
        counts = self.selected_counts(slices)
        # Python's rounding, as in the released code: a half goes to the even number
        anchors = highest(in_object_layer, [round(self.object_share * count / 5) for count in counts], slices.valid)
        buffers = _neighbors(anchors, slices) & ~anchors
        # anchors come first, then buffers, then the others, each by its own attention
        rank = _rank(torch.where(anchors | buffers, in_object_layer, score), slices.valid)
        tier = torch.where(anchors, 2, buffers.long())
        return highest((tier * slices.valid.shape[1] - rank).float(), counts, slices.valid)


def _neighbors(mask: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
    """Bool mask ``(S, M)`` of the tokens above, below, left and right of those of a mask."""
    device, length = mask.device, mask.shape[1]
    rows, columns = torch.tensor(list(slices.grids), device=device).T[..., None]
    place = torch.arange(length, device=device)
    row, column = place // columns, place % columns
    found = torch.zeros_like(mask)
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        inside = (row + down >= 0) & (row + down < rows) & (column + right >= 0) & (column + right < columns)
        found |= inside & mask.gather(1, (place + down * columns + right).clamp(0, length - 1))
    return found & slices.valid


def _rank(score: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Place of each token in its slice by falling score, int64 ``(S, M)``, equal ones in their order."""
    return score.masked_fill(~valid, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
