# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Hulu-Med's rule for consecutive frames, on whole slices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import avg_pool2d

from monai_medpruner.errors import VolumeShapeError
from monai_medpruner.transforms.slice_rules.base import (
    SliceChoice,
    SliceRule,
    SliceStack,
    require_at_least_zero,
    require_count,
)
from monai_medpruner.transforms.slice_rules.consecutive import consecutive_differences

__all__ = ["HuluMedRule"]


@dataclass(frozen=True)
class HuluMedRule(SliceRule):
    """Keeps a slice where at least one cell differs enough from the slice before it (Hulu-Med, arXiv:2510.08668).

    Source: Hulu-Med's released model code, facts only, which has the rule from VideoLLaMA3's video token compressor. A
    token stands for a cell of 28 x 28 pixels (2 x 2 patches of 14); it is dropped unless the mean absolute difference
    of the cell's pixels to the same cell of the previous frame is greater than 0.1, on pixels that the processor scaled
    to [-1, 1]. That is 0.05 on [0, 1]. VideoLLaMA3 has 0.1 on a scale of 255. The first frame is kept whole, and of
    every other frame at least one token.

    Deviations: a slice is kept whole where the rule would keep one of its tokens, and dropped where it would keep none,
    while there every frame leaves at least one token and its text; the rule runs before the encoder, so that a dropped
    slice costs no encoder time; cells are counted in the volume's own pixels, those at the far edges may hold fewer,
    and a slice smaller than a cell is one cell. Distances are the largest cell's difference to the slice before.

    Args:
        threshold: in the units of the image, at least 0. The default is for intensities in [0, 1].
        cell_pixels: side of a cell in pixels, at least 1.
    """

    threshold: float = 0.05
    cell_pixels: int = 28

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least_zero("threshold", self.threshold)
        require_count("cell_pixels", self.cell_pixels)

    def choose(self, stack: SliceStack) -> SliceChoice:
        """Choose the slices.

        Raises:
            NonFiniteVoxelsError: the volume holds NaN or infinite voxels.
            VolumeShapeError: the volume has not three spatial axes.
        """
        largest = self._largest_cells(stack)
        kept = [index for index, value in enumerate(largest) if index == 0 or value > self.threshold]
        return SliceChoice(kept, largest)

    def at_most(self, stack: SliceStack, max_slices: int) -> HuluMedRule:
        """Return the rule with the smallest threshold, among the slices' own differences, that keeps few enough."""
        largest = sorted(self._largest_cells(stack)[1:], reverse=True)
        # equal differences are kept or dropped together
        return self._with(threshold=largest[max_slices - 1] if max_slices <= len(largest) else 0.0)

    def _largest_cells(self, stack: SliceStack) -> list[float]:
        """Of every slice the largest mean over a cell of the absolute difference to the slice before it."""
        if stack.voxels.ndim != 4:
            raise VolumeShapeError(
                f"Hulu-Med's rule needs a channel-first volume with three spatial axes, got shape "
                f"{tuple(stack.voxels.shape)}."
            )

        def largest(difference: torch.Tensor) -> torch.Tensor:
            cell = [min(self.cell_pixels, size) for size in difference.shape[1:]]
            cells = avg_pool2d(difference.mean(0, keepdim=True), cell, ceil_mode=True, count_include_pad=False)
            return cells.max()

        return consecutive_differences(stack, largest)
