# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Differences between neighboring slices, in float64, a few slices at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from monai_medpruner.errors import NonFiniteVoxelsError
from monai_medpruner.transforms.slice_rules.base import SliceStack

__all__ = ["consecutive_differences", "mean_differences"]

_BLOCK_SLICES = 16  # float32 values in a cache line: slices that are read together where they are interleaved


@torch.no_grad()
def consecutive_differences(stack: SliceStack, measure: Callable[[torch.Tensor], torch.Tensor]) -> list[float]:
    """Measure the absolute difference of every slice to the one before it; 0.0 for the first slice.

    Args:
        stack: the volume.
        measure: turns one absolute difference, float64 ``(C, …)``, into one number.

    Raises:
        NonFiniteVoxelsError: a slice holds NaN or infinite voxels.
    """
    slices = _slices_in_blocks(stack)
    earlier = next(slices)
    measured = [measure(torch.zeros_like(earlier))]
    for later in slices:
        measured.append(measure((later - earlier).abs_()))
        earlier = later
    values = torch.stack(measured)
    if not bool(values.isfinite().all()):
        raise NonFiniteVoxelsError("the slice rule met NaN or infinite voxels: run CheckVolume first.")
    return values.tolist()


def mean_differences(stack: SliceStack) -> list[float]:
    """Mean absolute difference of every slice to the one before it, in the units of the image; 0.0 for the first."""
    return consecutive_differences(stack, torch.mean)


def _slices_in_blocks(stack: SliceStack) -> Iterator[torch.Tensor]:
    """The slices in float64, one after the other."""
    for block in stack.slices.split(_BLOCK_SLICES):
        yield from block.to(torch.float64, memory_format=torch.contiguous_format)
