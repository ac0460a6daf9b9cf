# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""DINS, dynamic information nucleus selection: the paper's pruner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners.base import SliceTokens, TokenPruner

__all__ = ["NucleusPruner", "nucleus"]

# a cumulative mass this close below tau has reached it: sums of equal masses round to either side of their true value
_REACHED = 1e-9


def nucleus(
    importance: torch.Tensor, tau: float, temperature: float, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Select the smallest set of tokens that holds a share of the softmax mass (MedPruner, eqs. 4 and 5).

    The mass is ``softmax(importance / temperature)`` over the tokens of a slice. Sorted by falling mass, equal ones in
    their order, the first k are kept, k being the smallest number whose cumulative mass reaches ``tau``.

    Args:
        importance: scores, shape ``(..., M)``.
        tau: share of the mass in ``(0, 1]`` (the paper's τ); 1 keeps every token.
        temperature: of the softmax, positive (the paper's T); it acts on the scale that ``importance`` has.
        valid: bool mask ``(..., M)``, False at padding, which is never kept; all True where None.

    Returns:
        Bool mask of shape ``(..., M)``; at least one token wherever there is a valid one.

    Raises:
        SettingsError: ``tau`` or ``temperature`` lies outside its range.
    """
    if not 0 < tau <= 1:
        raise SettingsError(f"tau must lie in (0, 1], got {tau}")
    if not temperature > 0:
        raise SettingsError(f"temperature must be positive, got {temperature}")
    valid = torch.ones_like(importance, dtype=torch.bool) if valid is None else valid
    if tau == 1:
        return valid.clone()
    # float64, so that a batch decides like a single slice whatever order the sums are taken in; the largest is taken
    # off before the division, which would overflow at a tiny temperature
    scores = importance.double().masked_fill(~valid, -torch.inf)
    mass = torch.softmax((scores - scores.amax(dim=-1, keepdim=True)) / temperature, dim=-1)
    ranked, order = mass.sort(dim=-1, descending=True, stable=True)
    before = ranked.cumsum(dim=-1) - ranked
    chosen = before < tau - _REACHED
    chosen[..., 0] = True
    return torch.zeros_like(valid).scatter(-1, order, chosen) & valid


@dataclass(frozen=True)
class NucleusPruner(TokenPruner):
    """Keep the smallest set of tokens that holds the share τ of the attention's softmax mass, slice by slice.

    With the defaults this is the paper's method. With importance ``a``, relative to uniform, token j of slice s has the
    mass ``softmax(min(a_sj, ceiling) / temperature)`` over the tokens of its slice, or of all slices (``scope``); the
    nucleus is that of :func:`nucleus`; and a slice with fewer than ``least_tokens`` in it gets its highest ones.

    Args:
        tau: share of the mass in ``(0, 1]``; 1 keeps every token. The default is the paper's.
        temperature: of the softmax, positive. The default, 2, is the released code's for Qwen3-VL and MedGemma.
        importance_scale: what the temperature acts on. "relative": attention relative to uniform, with mean 1 (the
            released code, hence the default). "paper": the literal mean over queries, with mean 1 / patches, where a
            temperature near 1 makes the mass all but uniform and about ``tau * M`` tokens are kept. M is that of each
            token's own slice, whatever the scope.
        ceiling: importance above it counts as this much, so that a few tokens that attract the attention of all others
            (sinks) do not hold the whole mass. Always in units of the uniform attention, 1 being a slice's mean,
            whatever the scale. Clipped tokens are equals, which stay in their order. None, the paper's, clips nothing.
        least_tokens: that stay of each slice, the highest ones, equals in their order; all of a slice that has fewer.
            The default, 1, is the paper's.
        scope: what the softmax and the nucleus run over. "slice": each slice by itself (the paper's). "volume": all
            slices together, so that slices without anything of note leave their share to others; each still keeps
            ``least_tokens``. A volume is the slices given together; where these belong to several volumes or images of
            a conversation, they share one nucleus. The encoder's output of all of them stays in memory until the last
            is encoded.

    Raises:
        SettingsError: a value lies outside its range.
    """

    tau: float = 0.9
    temperature: float = 2.0
    importance_scale: Literal["relative", "paper"] = "relative"
    ceiling: float | None = None
    least_tokens: int = 1
    scope: Literal["slice", "volume"] = "slice"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tau <= 1:
            raise SettingsError(f"tau must lie in (0, 1], got {self.tau}")
        if not self.temperature > 0:
            raise SettingsError(f"temperature must be positive, got {self.temperature}")
        if self.importance_scale not in ("relative", "paper"):
            raise SettingsError(f"importance_scale must be 'relative' or 'paper', got {self.importance_scale!r}")
        if self.ceiling is not None and not 0 < self.ceiling < math.inf:
            raise SettingsError(f"ceiling must be positive and finite, or None, got {self.ceiling}")
        if not isinstance(self.least_tokens, int) or self.least_tokens < 1:
            raise SettingsError(f"least_tokens must be a whole number of at least 1, got {self.least_tokens}")
        if self.scope not in ("slice", "volume"):
            raise SettingsError(f"scope must be 'slice' or 'volume', got {self.scope!r}")

    @property
    def whole_volume(self) -> bool:
        """Whether the nucleus is that of all slices together."""
        return self.scope == "volume"

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of the nucleus of each slice, or of all, and of each slice's least tokens."""
        valid = slices.valid
        if self.ceiling is not None:
            score = score.clamp(max=self.ceiling)
        if self.importance_scale == "paper":
            score = score / (valid.sum(1, keepdim=True) * slices.patches_per_token)
        if self.whole_volume:
            chosen = nucleus(score.flatten(), self.tau, self.temperature, valid.flatten()).view(valid.shape)
        else:
            chosen = nucleus(score, self.tau, self.temperature, valid)
        short = chosen.sum(1, keepdim=True) < self.least_tokens
        return chosen | (short & _highest(score, self.least_tokens, valid))


def _highest(score: torch.Tensor, count: int, valid: torch.Tensor) -> torch.Tensor:
    """Return the bool mask ``(S, M)`` of each slice's ``count`` highest scores, equal ones in their order."""
    # by score, not by mass: at a low temperature all but the largest mass may be zero
    order = score.masked_fill(~valid, -torch.inf).sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(valid).scatter(1, order, True) & valid
