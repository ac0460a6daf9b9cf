# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What was kept, what was merged where, and how long each stage took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import torch

__all__ = ["PruningRecord", "SliceRecord", "StageTimes", "VolumeRecord"]


class StageTimes(dict[str, float]):
    """Seconds per stage; a stage that is entered several times adds up."""

    @contextmanager
    def stage(self, name: str, device: torch.device | None = None) -> Iterator[None]:
        """Add the time of the block to a stage, work queued on a GPU included."""
        start = perf_counter()
        try:
            yield
            synchronize(device)
        finally:
            self.add({name: perf_counter() - start})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add the times of some stages to those that are there."""
        for name, spent in seconds.items():
            self[name] = self.get(name, 0.0) + spent


def synchronize(device: torch.device | None) -> None:
    """Wait for the work queued on a CUDA device; other devices need no waiting."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class SliceRecord:
    """The tokens of one slice, N of them, in the order of the prompt; all tensors on the CPU.

    Args:
        grid: rows and columns of the slice's tokens; token j lies at row ``j // columns``, column ``j % columns``.
        primary: bool ``(N,)``, selected as it is.
        contextual: bool ``(N,)``, others were merged into it.
        merged_into: int64 ``(N,)``, index of the token that carries each one now, -1 where it vanished.
        importance: attention received relative to uniform, float32 ``(N,)``; None where nothing was scored.
    """

    grid: tuple[int, int]
    primary: torch.Tensor
    contextual: torch.Tensor
    merged_into: torch.Tensor
    importance: torch.Tensor | None = None

    @classmethod
    def unpruned(cls, grid: tuple[int, int]) -> SliceRecord:
        """The record of a slice of which every token is kept."""
        size = grid[0] * grid[1]
        every, none = torch.ones(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
        return cls(grid, primary=every, contextual=none, merged_into=torch.arange(size))

    @property
    def keep(self) -> torch.Tensor:
        """Bool ``(N,)``: the tokens that reach the language model."""
        return self.primary | self.contextual

    @property
    def kept_tokens(self) -> torch.Tensor:
        """Row and column of each selected token, int64 ``(K, 2)``."""
        return self._coordinates(self.primary)

    @property
    def contextual_tokens(self) -> torch.Tensor:
        """Row and column of each contextual token, int64 ``(n, 2)``."""
        return self._coordinates(self.contextual)

    def _coordinates(self, mask: torch.Tensor) -> torch.Tensor:
        places = mask.nonzero().squeeze(1)
        return torch.stack([places // self.grid[1], places % self.grid[1]], dim=1)


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
