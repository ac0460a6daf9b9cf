# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

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
    mass ``softmax(min(a_sj, max_importance) / temperature)`` over the tokens of its slice, or of all slices
    (``scope``); the nucleus is that of :func:`nucleus`; and a slice with fewer than ``min_tokens`` in it gets its
    highest ones.

    Args:
        tau: share of the mass in ``(0, 1]``; 1 keeps every token. The default is the paper's.
        temperature: of the softmax, positive. The default, 2, is the released code's for Qwen3-VL and MedGemma.
        importance_scale: what the temperature acts on. "relative": attention relative to uniform, with mean 1 (the
            released code, hence the default). "paper": the literal mean over queries, with mean 1 / patches, where a
            temperature near 1 makes the mass all but uniform and about ``tau * M`` tokens are kept. M is that of each
            token's own slice, whatever the scope.
        max_importance: importance is clipped at this value, so that a few tokens that attract the attention of all
            others (sinks) do not hold the whole mass. Always in units of the uniform attention, 1 being a slice's mean,
            whatever the scale. Clipped tokens are equals, which stay in their order. None, the paper's, clips nothing.
        min_tokens: that stay of each slice, the highest ones, equals in their order; all of a slice that has fewer.
            The default, 1, is the paper's.
        scope: what the softmax and the nucleus run over. "slice": each slice by itself (the paper's). "volume": all
            slices together, so that slices without anything of note leave their share to others; each still keeps
            ``min_tokens``. A volume is the slices given together; where these belong to several volumes or images of
            a conversation, they share one nucleus. The encoder's output of all of them stays in memory until the last
            is encoded.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    tau: float = 0.9
    temperature: float = 2.0
    importance_scale: Literal["relative", "paper"] = "relative"
    max_importance: float | None = None
    min_tokens: int = 1
    scope: Literal["slice", "volume"] = "slice"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tau <= 1:
            raise SettingsError(f"tau must lie in (0, 1], got {self.tau}")
        if not self.temperature > 0:
            raise SettingsError(f"temperature must be positive, got {self.temperature}")
        if self.max_importance is not None and not 0 < self.max_importance < math.inf:
            raise SettingsError(f"max_importance must be positive and finite, or None, got {self.max_importance}")
        if self.min_tokens < 1:
            raise SettingsError(f"min_tokens must be at least 1, got {self.min_tokens}")

    @property
    def whole_volume(self) -> bool:
        """Whether the nucleus is that of all slices together."""
        return self.scope == "volume"

    @property
    def least_selected(self) -> int:
        """``min_tokens``."""
        return self.min_tokens

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of the nucleus of each slice, or of all, and of each slice's least tokens."""
        valid = slices.valid
        score = self._scaled(score, slices)
        if self.whole_volume:
            chosen = nucleus(score.flatten(), self.tau, self.temperature, valid.flatten()).view(valid.shape)
        else:
            chosen = nucleus(score, self.tau, self.temperature, valid)
        short = chosen.sum(1, keepdim=True) < self.min_tokens
        return chosen | (short & _highest(score, self.min_tokens, valid))

    def limit(self, score: torch.Tensor, primary: torch.Tensor, slices: SliceTokens, max_tokens: int) -> torch.Tensor:
        """Keep the tokens with the highest mass in the volume, whatever the scope; see :meth:`TokenPruner.limit`.

        With ``tau`` 1 this is the nucleus of the volume for the largest τ that meets the limit.
        """
        return super().limit(self._scaled(score, slices), primary, slices, max_tokens)

    def _scaled(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """What the temperature acts on: importance, clipped, on its scale."""
        if self.max_importance is not None:
            score = score.clamp(max=self.max_importance)
        if self.importance_scale == "paper":
            score = score / (slices.valid.sum(1, keepdim=True) * slices.patches_per_token)
        return score


def _highest(score: torch.Tensor, count: int, valid: torch.Tensor) -> torch.Tensor:
    """Return the bool mask ``(S, M)`` of each slice's ``count`` highest scores, equal ones in their order."""
    # by score, not by mass: at a low temperature all but the largest mass may be zero
    order = score.masked_fill(~valid, -torch.inf).sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(valid).scatter(1, order, True) & valid
