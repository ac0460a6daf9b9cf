# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Local contrast: tokens whose squares show a small structure that differs from its surroundings."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monai_medpruner.pruners.base import SliceTokens, TokenPruner
from monai_medpruner.pruners.fixed_share import check_keep_ratio, highest_of_volume
from monai_medpruner.pruners.signals import LocalContrast, Signal

__all__ = ["LocalContrastPruner"]


@dataclass(frozen=True)
class LocalContrastPruner(TokenPruner):
    """Keep the tokens that show a small structure unlike its surroundings, by the highest local contrast of the volume.

    The score is :class:`LocalContrast`; at least one token of each slice is kept. The pixels decide, and neither
    attention nor what the encoder makes of them: slices of one grid keep the same tokens with every encoder, which runs
    as it is. Differences of Gaussians are the usual detector of small round structures. Bone must be clipped by the
    window, as in a brain window: in a soft-tissue window, spongy bone has the highest contrast of a torso.
    ``docs/evidence_findings.md`` has the comparison with other pruners.

    Args:
        contextual_ratio: contextual tokens as a share of a slice's tokens, in ``[0, 1]``; 0, the default, turns merging
            off.
        keep_ratio: kept tokens as a share of the volume's tokens, in ``(0, 1]``, rounded up.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    contextual_ratio: float = 0.0
    keep_ratio: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_keep_ratio(self.keep_ratio)

    @property
    def signals(self) -> frozenset[Signal]:
        """The local contrast alone; merging measures similarity on the tokens themselves."""
        return frozenset({LocalContrast()})

    @property
    def whole_volume(self) -> bool:
        """True: the highest of all slices are kept."""
        return True

    def score(self, slices: SliceTokens) -> torch.Tensor:
        """Return the local contrast, float32 ``(S, M)``."""
        return slices.signal(LocalContrast())

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        """Return the bool mask ``(S, M)`` of the volume's highest scores, and of the highest of each slice."""
        return highest_of_volume(score, self.keep_ratio, slices.valid)
