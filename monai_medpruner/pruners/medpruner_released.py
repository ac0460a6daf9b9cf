# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""MedPruner as its authors' released code runs it: slices are dropped after the encoder, all but one token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

import torch

from monai_medpruner.errors import BudgetError, SettingsError
from monai_medpruner.pruners.base import PrunedTokens, SliceTokens
from monai_medpruner.pruners.nucleus import NucleusPruner
from monai_medpruner.pruners.signals import AnchorSlices, Signal

__all__ = ["MedPrunerReleasedPruner"]


@dataclass(frozen=True)
class MedPrunerReleasedPruner(NucleusPruner):
    """The nucleus of each slice, then the slice filter: of a dropped slice the first token is left.

    A baseline. Source: the authors' code of MedPruner (arXiv 2603.11625, repository CUHK-AIM-Group/MedPruner), facts
    only. It encodes every slice and selects and merges the tokens of each; then the anchor rule (eq. 2) walks the
    pixels that the image processor made, and a token is kept where both keep it. Of a slice that the rule drops, its
    mask holds the first token, which the nucleus has selected or which is the first contextual one: that token stays,
    with what was merged into it, and so does the text around the slice. So the filter saves none of the encoder's
    time. Keep every slice before the encoder (``gamma`` "none" among the settings of the slices), or two filters run.

    Deviations from the code:

    - Importance and keys are averaged over the patches that form a token. The code takes 16 patches of the raster that
      follow one another for MedGemma, which form a token in one case of 16.
    - Gaps in positions, the prompt and the image size are what this package makes of them for every pruner.
    - A slice of another size than its anchor is kept; the code takes all slices to have the size of the first.
    - Settings at which the code stops with an error work: nothing left to merge, no contextual tokens.

    Args:
        threshold: γ of the anchor rule, in the units of the image processor's output, at least 0. The default is the
            code's, for [-1, 1]; on intensities in [0, 1] it is 0.025.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    threshold: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isfinite(self.threshold) and self.threshold >= 0):
            raise SettingsError(f"threshold must be finite and at least 0, got {self.threshold}")

    @property
    def signals(self) -> frozenset[Signal]:
        """Those of the nucleus, and which slices the anchor rule keeps."""
        return super().signals | {self._anchors}

    def limit(self, score: torch.Tensor, primary: torch.Tensor, slices: SliceTokens, max_tokens: int) -> torch.Tensor:
        """Thin out the tokens of the kept slices; a dropped one has one token in any case."""
        kept = slices.signal(self._anchors)
        left = max_tokens - int((~kept).sum())
        places = kept.nonzero().flatten().tolist()
        lengths = [rows * columns for rows, columns in slices.grids]
        if left < sum(self.least_tokens(lengths[place]) for place in places):
            raise BudgetError(
                f"a budget of {max_tokens} visual tokens is too small for {len(score)} slices: the anchor rule "
                f"leaves {len(places)}, and one token of each other: raise the budget, or encode fewer slices"
            )
        some = replace(slices, valid=slices.valid[kept], grids=[slices.grids[place] for place in places])
        limited = primary.clone()
        limited[kept] = super().limit(score[kept], primary[kept], some, left)
        return limited

    def merge(self, slices: SliceTokens, primary: torch.Tensor) -> PrunedTokens:
        """Merge the tokens of every slice, then leave the first token of each slice that the anchor rule drops."""
        merged = super().merge(slices, primary)
        dropped = ~slices.signal(self._anchors)
        first = torch.arange(primary.shape[1], device=primary.device) == 0
        there = ~dropped[:, None] | first
        contextual = merged.contextual & there
        # without contextual tokens, the first one may be none of the selected
        selected = (merged.primary & there) | (first & dropped[:, None] & ~contextual)
        carried = merged.merged_into
        gone = dropped[:, None] & (carried != 0)
        merged_into = carried.masked_fill(gone, -1).masked_fill(first & dropped[:, None], 0)
        return PrunedTokens(merged.tokens, selected, contextual, merged_into, dropped)

    @property
    def _anchors(self) -> AnchorSlices:
        return AnchorSlices(self.threshold)
