# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What was kept, what was merged where, and how long each stage took."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from monai_medpruner.results import SliceRecord, StageTimes

__all__ = ["PruningRecord", "VolumeRecord"]


@dataclass
class PruningRecord:
    """What one call of a pruned model kept.

    Args:
        keep: bool ``(B, L)`` over the caller's prompt: true for text and for primary and contextual tokens, false for
            dropped tokens and for padding.
        slices: one list per prompt of the batch, one entry per slice.
        seconds: per stage, of "encode", "select", "prefill", "decode", those that the call went through.
    """

    keep: torch.Tensor
    slices: list[list[SliceRecord]]
    seconds: StageTimes = field(default_factory=StageTimes)

    @property
    def unpruned_tokens(self) -> int:
        """Visual tokens of the slices before pruning."""
        return sum(one.keep.numel() for prompt in self.slices for one in prompt)

    @property
    def kept_tokens(self) -> int:
        """Visual tokens that reach the language model."""
        return sum(int(one.keep.sum()) for prompt in self.slices for one in prompt)


@dataclass
class VolumeRecord:
    """What was kept of one volume.

    Args:
        total_slices: of the volume, before any selection.
        slice_indices: the kept slices, counted from 0 over the whole volume.
        slices: their tokens, one entry per kept slice.
        seconds: one entry per question. The first bears the stages that all questions share, "encode" (with the image
            processor) and "select"; the others have 0 there. "prefill" holds the writing of the prompt.
        notes: what was unusual on the way, such as a second attempt with less memory.
    """

    total_slices: int
    slice_indices: list[int]
    slices: list[SliceRecord]
    seconds: list[StageTimes]
    notes: list[str] = field(default_factory=list)

    @property
    def kept_tokens(self) -> list[int]:
        """Visual tokens that reach the language model, per kept slice."""
        return [int(one.keep.sum()) for one in self.slices]

    @property
    def unpruned_tokens(self) -> int:
        """Visual tokens of the whole volume without pruning; all its slices have one size."""
        return self.total_slices * self.slices[0].keep.numel()

    @property
    def retention(self) -> dict[str, float]:
        """Fractions that are left: of the "slices", of the "tokens_per_kept_slice", and of all tokens ("overall")."""
        slices = len(self.slice_indices) / self.total_slices
        overall = sum(self.kept_tokens) / self.unpruned_tokens
        return {"slices": slices, "tokens_per_kept_slice": overall / slices, "overall": overall}
