# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What one call of a pruned model kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from monai_medpruner.results.slice_record import SliceRecord

__all__ = ["PruningRecord"]


@dataclass(frozen=True, eq=False)
class PruningRecord:
    """What one call of :class:`~monai_medpruner.networks.PrunedVLM` kept.

    Args:
        keep: bool ``(B, L)`` over the caller's prompt: true for text and for primary and contextual tokens, false for
            dropped tokens and for padding.
        slices: one list per prompt of the batch, one entry per slice.
        seconds: of the stages "encode", "select", "prefill" and "decode", those that the call went through.
        reused_tokens: tokens at the beginning of the pruned prompt that an earlier call had run.
    """

    keep: torch.Tensor
    slices: list[list[SliceRecord]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    reused_tokens: int = 0

    @property
    def unpruned_tokens(self) -> int:
        """Visual tokens of the slices before pruning."""
        return sum(one.keep.numel() for prompt in self.slices for one in prompt)

    @property
    def kept_tokens(self) -> int:
        """Visual tokens that reach the language model."""
        return sum(int(one.keep.sum()) for prompt in self.slices for one in prompt)
