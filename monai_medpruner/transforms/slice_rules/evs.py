# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The rule of Efficient Video Sampling (EVS), which vLLM uses for video, on whole slices."""

from __future__ import annotations

from dataclasses import dataclass

from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms.slice_rules.base import SliceChoice, SliceRule, SliceStack
from monai_medpruner.transforms.slice_rules.consecutive import mean_differences

__all__ = ["EVSRule"]


@dataclass(frozen=True)
class EVSRule(SliceRule):
    """Keeps the slices that differ most from the slice before them (Efficient Video Sampling, arXiv:2510.14624).

    Source: vLLM, ``vllm/multimodal/evs.py``, facts only. There the tokens of a video are ranked by 1 less the cosine
    similarity of a token's embedding to that of the same place in the previous frame; the first frame's tokens rank
    first, and the best (1 - pruning rate) of all tokens are kept, at least as many as one frame has.

    Deviations: whole slices are ranked, so that a dropped slice costs no encoder time; and they are ranked before the
    encoder, by the mean absolute difference of intensities. As there, the first slice is always kept, the comparison is
    with the previous slice whether that is kept or not, and the earlier one of two equals is kept. Distances are the
    differences to the slice before.

    Args:
        pruning_rate: share of the slices that are dropped, in [0, 1).
    """

    pruning_rate: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.pruning_rate < 1:
            raise SettingsError(f"pruning_rate must lie in [0, 1), got {self.pruning_rate}.")

    def choose(self, stack: SliceStack) -> SliceChoice:
        """Choose the slices.

        Raises:
            NonFiniteVoxelsError: the volume holds NaN or infinite voxels.
        """
        differences = mean_differences(stack)
        # the small number: 1 - (1 - n / D) may lie below n / D by rounding
        count = max(1, int(stack.depth * (1 - self.pruning_rate) + 1e-6))
        order = sorted(range(1, stack.depth), key=lambda index: -differences[index])
        return SliceChoice(sorted([0, *order[: count - 1]]), differences)

    def at_most(self, stack: SliceStack, max_slices: int) -> EVSRule:
        """Return the rule with the pruning rate that keeps ``max_slices`` slices, or all where the volume has fewer."""
        return self._with(pruning_rate=1 - min(max_slices, stack.depth) / stack.depth)
