# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The record of one slice."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["SliceRecord"]


@dataclass(frozen=True, eq=False)
class SliceRecord:
    """The N tokens of one slice, in the order of the prompt. All tensors are on the CPU.

    Args:
        grid: rows and columns of the slice's tokens; token j is at row ``j // columns``, column ``j % columns``.
        primary: bool ``(N,)``, tokens that were selected and are kept unchanged.
        contextual: bool ``(N,)``, kept tokens into which others were merged.
        merged_into: int64 ``(N,)``, index of the kept token that each token is part of; -1 for dropped tokens.
        importance: received attention relative to uniform attention, float32 ``(N,)``; None if no scores were computed.
        dropped: whether a slice filter behind the encoder dropped the slice, all but one token.
    """

    grid: tuple[int, int]
    primary: torch.Tensor
    contextual: torch.Tensor
    merged_into: torch.Tensor
    importance: torch.Tensor | None = None
    dropped: bool = False

    @classmethod
    def unpruned(cls, grid: tuple[int, int]) -> SliceRecord:
        """Return the record of a slice whose tokens are all kept."""
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
