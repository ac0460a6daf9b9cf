# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What a token budget allows of one volume: how many slices, and how many tokens of these."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor

from monai_medpruner.data.volume_meta import append_note, range_depth
from monai_medpruner.errors import BudgetError
from monai_medpruner.pruners import TokenBudget, TokenPruner
from monai_medpruner.transforms.slice_limit import slice_positions, slices_for_gap
from monai_medpruner.transforms.slice_selection import SliceSelection

__all__ = ["VolumeLimit", "volume_limit"]


@dataclass(frozen=True)
class VolumeLimit:
    """The limits of one volume under a budget.

    Args:
        tokens: visual tokens that are kept at most, contextual ones included.
        slices: slices that are encoded at most.
        slice_tokens: visual tokens of a slice without pruning.
        least: tokens that the pruner keeps of a slice at least.
    """

    tokens: int
    slices: int
    slice_tokens: int
    least: int

    def selected(self, volume: torch.Tensor) -> torch.Tensor:
        """Return the volume, or as many of its slices, evenly spaced, as the budget allows, with a note.

        Args:
            volume: ``(C, H, W, D)``.
        """
        depth = volume.shape[-1]
        if depth <= self.slices:
            return volume
        # one slice is the middle one, not the end of the volume
        places = np.linspace(0, depth - 1, self.slices + 2 * (self.slices == 1), dtype=int).tolist()
        out = SliceSelection().select(volume, places[1:2] if self.slices == 1 else places)
        if isinstance(out, MetaTensor):
            append_note(
                out.meta,
                f"{depth} slices were left, and the budget of {self.tokens} visual tokens (at least {self.least} a "
                f"slice) allows {self.slices}: these were taken evenly spaced, whatever rule chose slices before.",
            )
        return out


def volume_limit(
    budget: TokenBudget, pruner: TokenPruner | None, volume: torch.Tensor, slice_tokens: int, encoded_tokens: int
) -> VolumeLimit:
    """Work out the limits of a volume.

    Args:
        budget: with a limit of tokens.
        pruner: that the slices are pruned with; None keeps every token of a slice.
        volume: the slices that were kept so far, ``(C, H, W, D)``; metadata of a MetaTensor tell of what range.
        slice_tokens: visual tokens of a slice without pruning, uncropped.
        encoded_tokens: those of a slice as it is encoded, before pruning.

    Raises:
        BudgetError: the budget is below what one slice keeps at least.
    """
    range_slices = range_depth(volume.meta if isinstance(volume, MetaTensor) else {}, volume.shape[-1])
    unpruned = range_slices * slice_tokens
    tokens = budget.tokens(unpruned) or 0
    least = encoded_tokens if pruner is None else pruner.least_tokens(encoded_tokens)
    if tokens < least:
        raise BudgetError(
            f"the budget of {tokens} visual tokens, of {unpruned} that the {range_slices} slices have without pruning, "
            f"is below what one slice keeps at least: {least} of its {encoded_tokens}. Raise the budget"
            + ("" if pruner is None else ", or lower the pruner's contextual_ratio or the tokens that it always keeps")
        )
    wanted = slices_for_gap(slice_positions(volume, 3), budget.slices(range_slices, unpruned), budget.gap_mm)
    return VolumeLimit(tokens, min(wanted, tokens // least), slice_tokens, least)
