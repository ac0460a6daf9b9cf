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

    Args:
        tau: share of the mass in ``(0, 1]``; 1 keeps every token. The default is the paper's.
        temperature: of the softmax, positive. The default, 2, is the released code's for Qwen3-VL and MedGemma.
        importance_scale: what the temperature acts on. "relative": attention relative to uniform, with mean 1 (the
            released code, hence the default). "paper": the literal mean over queries, with mean 1 / patches, where a
            temperature near 1 makes the mass all but uniform and about ``tau * M`` tokens are kept.

    Raises:
        SettingsError: a value lies outside its range.
    """

    tau: float = 0.9
    temperature: float = 2.0
    importance_scale: Literal["relative", "paper"] = "relative"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tau <= 1:
            raise SettingsError(f"tau must lie in (0, 1], got {self.tau}")
        if not self.temperature > 0:
            raise SettingsError(f"temperature must be positive, got {self.temperature}")
        if self.importance_scale not in ("relative", "paper"):
            raise SettingsError(f"importance_scale must be 'relative' or 'paper', got {self.importance_scale!r}")

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of the nucleus of each slice."""
        if self.importance_scale == "paper":
            score = score / (slices.valid.sum(1, keepdim=True) * slices.patches_per_token)
        return nucleus(score, self.tau, self.temperature, slices.valid)
