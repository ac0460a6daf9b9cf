# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""How many visual tokens a volume may have, and the selected tokens that stay under such a limit."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch

from monai_medpruner.errors import BudgetError, SettingsError
from monai_medpruner.field_types import check_field_types

__all__ = ["TokenBudget", "limit_by_score", "slice_share"]


def slice_share(retention: float) -> float:
    """Return the share of the slices that a share of the tokens is spread over: its square root.

    Slices and the tokens of each kept slice are thinned out alike: 5 % of the tokens are 22 % of the slices with 22 %
    of their tokens each. Few slices are what saves the encoder's time, and what loses findings: on 40 phantoms (slices
    about 5 mm apart, 174 closed questions, Qwen3-VL, ``benchmarks/budget_split.py``, seed 77) 5 % of the tokens on
    12.5, 25, 50 and 100 % of the slices gave 82, 87, 97 and 98 % right answers, and 52, 85, 100 and 100 % of the
    lesions had a kept slice; with 10 % of the tokens the answers were within two points of these. Hence the bound of
    the gap in mm beside this share (``max_gap_mm``): it keeps few of thin slices and many of thick ones. With it, 77 %
    of these thick slices are kept, and the answers are 98 % right, against 99 % without pruning.

    Args:
        retention: share of the volume's tokens, in ``(0, 1]``.
    """
    return float(retention**0.5)


@dataclass(frozen=True)
class TokenBudget:
    """How many visual tokens of a volume may reach the language model, contextual ones included.

    The smaller of the two limits counts. Without either there is no budget.

    Args:
        retention: share of the volume's tokens without pruning, in ``(0, 1]``: of all slices of the chosen range,
            uncropped, at the size that the image processor itself gives them.
        max_visual_tokens: number of tokens, at least 1.
        slice_ratio: share of the range's slices that are kept at most, in ``(0, 1]``. None leaves it to
            ``share_slices``.
        share_slices: whether the budget also limits the number of slices where ``slice_ratio`` does not: to
            :func:`slice_share`, or to as many more as it takes for ``max_gap_mm``. False where something else decides
            it, such as a given γ.
        max_gap_mm: largest distance between the centers of kept slices that ``share_slices`` may leave, positive. The
            limit of tokens wins over it. None bounds nothing.

    Raises:
        SettingsError: a value has the wrong type or lies outside its range.
    """

    retention: float | None = None
    max_visual_tokens: int | None = None
    slice_ratio: float | None = None
    share_slices: bool = True
    max_gap_mm: float | None = None

    def __post_init__(self) -> None:
        check_field_types(self)
        for name in ("retention", "slice_ratio"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise SettingsError(f"{name} must lie in (0, 1], got {value}")
        if self.max_visual_tokens is not None and self.max_visual_tokens < 1:
            raise SettingsError(f"max_visual_tokens must be at least 1, got {self.max_visual_tokens}")
        if self.max_gap_mm is not None and not self.max_gap_mm > 0:
            raise SettingsError(f"max_gap_mm must be positive, or None, got {self.max_gap_mm}")

    @property
    def limits_tokens(self) -> bool:
        """Whether there is a budget at all."""
        return self.retention is not None or self.max_visual_tokens is not None

    @property
    def known_slice_ratio(self) -> float | None:
        """Share of the slices as far as it follows from the fields, without the volume's number of tokens."""
        if self.slice_ratio is not None:
            return self.slice_ratio
        return slice_share(self.retention) if self.share_slices and self.retention is not None else None

    @property
    def gap_mm(self) -> float | None:
        """The largest gap where the budget itself limits the number of slices; None where it does not."""
        return self.max_gap_mm if self.slice_ratio is None and self.share_slices and self.limits_tokens else None

    def tokens(self, unpruned: int) -> int | None:
        """Return the limit for a volume; None without a budget.

        Args:
            unpruned: the volume's tokens without pruning, those of ``retention``.
        """
        limits = [] if self.max_visual_tokens is None else [self.max_visual_tokens]
        if self.retention is not None:
            limits.append(share_of(self.retention, unpruned))
        return min(limits, default=None)

    def slices(self, slices: int, unpruned: int) -> int:
        """Return how many slices may be kept, at least 1, where no gap asks for more.

        Args:
            slices: of the chosen range.
            unpruned: as in :meth:`tokens`.
        """
        ratio = self.slice_ratio
        if ratio is None and self.share_slices and self.limits_tokens:
            limits = [] if self.retention is None else [self.retention]
            limits += [] if self.max_visual_tokens is None else [min(1.0, self.max_visual_tokens / unpruned)]
            ratio = slice_share(min(limits))
        return slices if ratio is None else max(1, share_of(ratio, slices))


def share_of(share: float, count: int) -> int:
    """Return the largest whole number that is not above a share of a count; the share as it is written in decimals."""
    return int(Fraction(repr(float(share))) * count)


def limit_by_score(
    score: torch.Tensor,
    primary: torch.Tensor,
    valid: torch.Tensor,
    contextual: torch.Tensor,
    least: int,
    max_tokens: int,
) -> torch.Tensor:
    """Thin out selected tokens so that these and the contextual tokens are not more than a limit.

    Each slice keeps its ``least`` highest selected tokens; what is left of the limit goes to the highest others of all
    slices. Equal scores go round the slices: the highest of each slice come first, in the order of the slices.

    Args:
        score: of the tokens, ``(S, M)``.
        primary: bool mask ``(S, M)`` of the selected tokens.
        valid: bool mask ``(S, M)``, False at padding.
        contextual: int64 ``(S,)``, contextual tokens that each slice gets where as many tokens are not selected; where
            fewer are left, all of these stay.
        least: selected tokens that each slice keeps, at least 1.
        max_tokens: limit for all slices together.

    Returns:
        Bool mask ``(S, M)``; ``primary`` itself where it is within the limit.

    Raises:
        BudgetError: the limit is smaller than what the slices keep at least.
    """
    lengths = valid.sum(1)

    def kept(selected: torch.Tensor) -> torch.Tensor:
        return (selected + torch.minimum(lengths - selected, contextual)).sum()

    order = score.masked_fill(~primary, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    rank = order.argsort(dim=1).masked_fill(~primary, primary.shape[1])
    highest = rank < least
    room = max_tokens - int(kept(highest.sum(1)))
    if room < 0:
        raise BudgetError(
            f"a budget of {max_tokens} visual tokens is too small for {len(score)} slices, which keep at least "
            f"{max_tokens - room}: raise the budget, or keep fewer slices"
        )
    # beyond that rank a token stays in any case, as a contextual one
    others = ~highest & (rank < (lengths - contextual)[:, None])
    by_rank = score.masked_fill(~others, -torch.inf).gather(1, order).T.flatten()
    place = by_rank.sort(descending=True, stable=True).indices.argsort().view(primary.shape[::-1]).T
    chosen = highest | (others & (torch.zeros_like(order).scatter(1, order, place) < room))
    return torch.where(kept(primary.sum(1)) <= max_tokens, primary, chosen)
