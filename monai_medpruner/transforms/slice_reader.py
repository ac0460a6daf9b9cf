# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Reading the slices of a volume one after the other, each together in memory, whatever order the volume is in."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["SliceReader"]

_EXACT_IN_FLOAT32 = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.bool,
)
_BLOCK_SLICES = 64  # interleaved slices that are transposed together: four cache lines of float32
_BLOCK_PIXELS = 384  # pixels that are transposed together: their cache lines stay in the first-level cache
_ALIASED_BYTES = 512  # pixels so far apart, or a multiple of it, compete for the same few lines of a cache


class SliceReader:
    """Reads slices in turn, pixels in the order of memory, in float32 where that holds the voxels and else in float64.

    Slices that are in that form are views. Others are copied: a block of neighbors at a time where they are interleaved
    in memory, so that a cache line is fetched once a block and not once a slice.

    Args:
        image: any dtype, layout and device.
        axis: axis along which slices lie.
    """

    def __init__(self, image: torch.Tensor, axis: int) -> None:
        slices = image.detach().movedim(axis, 0)
        self.depth, *shape = slices.shape
        # from the slowest pixel axis in memory to the fastest
        self.order = sorted(range(len(shape)), key=lambda pixel: (shape[pixel] > 1, -slices.stride(1 + pixel)))
        slices = slices.permute(0, *(1 + pixel for pixel in self.order))
        self.plane_shape = slices.shape[1:]
        try:
            self.slices = slices.view(self.depth, -1)
        except RuntimeError:  # pixels that no single stride reaches, e.g. a crop
            self.slices = slices
        dtype = torch.float32 if slices.dtype in _EXACT_IN_FLOAT32 else torch.float64
        on_host = slices.device.type == "cpu"
        self.interleaved = 0 < slices.stride(0) < self.slices.stride(-1)
        self.views = on_host and slices.dtype == dtype and not self.interleaved
        self.transposed = on_host and slices.dtype != torch.bfloat16 and self.interleaved  # numpy has no bfloat16
        size = max(1, min(_BLOCK_SLICES, self.depth // 8)) if self.interleaved or not on_host else 1
        self.block = self.slices[:0] if self.views else torch.empty((size, *self.slices.shape[1:]), dtype=dtype)
        self.start = 0
        self.read_ahead = self.slices.numpy() if self.views else self.block[:0].numpy()
        self.plane = torch.empty(self.slices.shape[1:], dtype=dtype, device="meta")

    def read(self, index: int) -> np.ndarray:
        """Return a slice; unless slices are views, it is overwritten when a later one is read."""
        if not self.start <= index < self.start + len(self.read_ahead):
            size = min(len(self.block), self.depth - index)
            self._copy(index, self.block[:size])
            self.start, self.read_ahead = index, self.block[:size].numpy()
        return self.read_ahead[index - self.start]

    def owned(self, pixels: np.ndarray) -> np.ndarray:
        """Return a slice that was read, in a form that lasts."""
        return pixels if self.views else pixels.copy()

    def read_all(self) -> np.ndarray:
        """Return all slices, as a view or in one copy."""
        if self.views:
            return self.read_ahead
        slices = torch.empty((self.depth, *self.plane.shape), dtype=self.plane.dtype)
        for start, part in enumerate(slices.split(len(self.block))):
            self._copy(start * len(self.block), part)
        return slices.numpy()

    def as_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return a slice in the image's own order of axes."""
        return pixels.view(self.plane_shape).permute(*(self.order.index(axis) for axis in range(len(self.order))))

    def _copy(self, start: int, target: torch.Tensor) -> None:
        """Copy as many slices as ``target`` takes, from ``start`` on."""
        source = self.slices[start : start + len(target)]
        if self.transposed:
            _transpose(source.numpy(), target.numpy())
        else:
            target.copy_(source)


def _transpose(source: np.ndarray, target: np.ndarray) -> None:
    """Copy slices that are interleaved in memory, a few cache lines of each pixel at a time.

    Args:
        source: slices first, the fastest axis in memory; the last axis holds most pixels.
        target: of the same shape, each slice contiguous.
    """
    stage = np.empty((_BLOCK_PIXELS, len(source) + 4), source.dtype)  # rows whose distance is no power of two
    for rows in np.ndindex(source.shape[1:-1]):
        for first in range(0, source.shape[-1], _BLOCK_PIXELS):
            piece = slice(None), *rows, slice(first, first + _BLOCK_PIXELS)
            pixels = source[piece].T
            if pixels.strides[0] % _ALIASED_BYTES == 0:
                staged = stage[: len(pixels), : len(source)]
                staged[...] = pixels
                pixels = staged
            target[piece] = pixels.T
