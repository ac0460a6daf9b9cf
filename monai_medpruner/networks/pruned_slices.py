# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The pruned tokens of slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from monai_medpruner.results import SliceRecord, StageTimes

__all__ = ["PrunedSlices"]


@dataclass(frozen=True, eq=False)
class PrunedSlices:
    """The pruned tokens of some slices, ready for the language model.

    Args:
        tokens: per slice, projected tokens that are kept, ``(K_i, C)``.
        deepstack_features: per layer and slice, the rows that go with them.
        records: per slice, what was kept.
        seconds: of the stages "encode" and "select".
    """

    tokens: list[torch.Tensor] = field(default_factory=list)
    deepstack_features: list[list[torch.Tensor]] = field(default_factory=list)
    records: list[SliceRecord] = field(default_factory=list)
    seconds: StageTimes = field(default_factory=StageTimes)

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Per slice, rows and columns of its tokens before pruning."""
        return [record.grid for record in self.records]

    @property
    def keep(self) -> list[torch.Tensor]:
        """Per slice, the bool mask of its kept tokens."""
        return [record.keep for record in self.records]

    def of_slices(self, places: Sequence[int]) -> PrunedSlices:
        """The tokens of some of the slices, in the order given; they are shared, not copied.

        Args:
            places: of the slices among those here, counted from 0.
        """
        return PrunedSlices(
            tokens=[self.tokens[place] for place in places],
            deepstack_features=[[layer[place] for place in places] for layer in self.deepstack_features],
            records=[self.records[place] for place in places],
            seconds=StageTimes(self.seconds),
        )

    @classmethod
    def joined(cls, parts: Sequence[PrunedSlices]) -> PrunedSlices:
        """The slices of all parts as one, in their order; their times are summed."""
        seconds = StageTimes()
        for part in parts:
            seconds.add(part.seconds)
        return cls(
            tokens=[one for part in parts for one in part.tokens],
            deepstack_features=[
                [one for rows in layer for one in rows]
                for layer in zip(*(part.deepstack_features for part in parts), strict=True)
            ],
            records=[record for part in parts for record in part.records],
            seconds=seconds,
        )
