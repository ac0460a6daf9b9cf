# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The record of one call of a pruned model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from monai_medpruner.results.slice_record import SliceRecord

__all__ = ["PruningRecord"]


@dataclass(frozen=True, eq=False)
class PruningRecord:
    """The kept tokens and the times of one call of :class:`~monai_medpruner.networks.PrunedVLM`.

    Args:
        keep: bool ``(B, L)`` over the unpruned prompt: True for text and for primary and contextual tokens, False for
            dropped tokens and padding.
        slices: one list per prompt of the batch, with one record per slice.
        seconds: seconds of the stages "encode", "select", "prefill" and "decode" that were part of the call.
        reused_tokens: number of tokens at the beginning of the pruned prompt that an earlier call had run.
    """

    keep: torch.Tensor
    slices: list[list[SliceRecord]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    reused_tokens: int = 0

    @property
    def unpruned_tokens(self) -> int:
        """Number of visual tokens before pruning."""
        return sum(one.keep.numel() for prompt in self.slices for one in prompt)

    @property
    def kept_tokens(self) -> int:
        """Number of visual tokens that reach the language model."""
        return sum(int(one.keep.sum()) for prompt in self.slices for one in prompt)
