# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Which slices the anchor rule keeps (eq. 2 of arXiv:2603.11625): exact decisions at the speed of memory.

The walk is sequential: the anchor is the last kept slice. Where the slice axis is the fastest in memory, reading one
slice touches every cache line of the volume, and a plain loop reads the volume once a slice. So anchors are guessed on
a sample of the pixels, one pass over memory measures every slice against its guessed anchor, and the walk then checks
the guess. Where it fails, the rest is guessed anew from the true anchor; after a few failures, slices are read in
blocks, which no volume can make slow. A distance within rounding of γ is measured exactly.

With a guard for small lesions every slice is read: a sample of the pixels would miss what the guard is there to see.
"""

from __future__ import annotations

from fractions import Fraction
from math import isfinite
from typing import NamedTuple

import torch
from torch.nn.functional import avg_pool2d

from monai_medpruner.errors import NonFiniteVoxelsError

__all__ = ["AnchoredSlices", "anchor_slices", "exact_mean", "guarded_slices"]

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
_SAMPLED_PIXELS = 2**15  # anchors are guessed on these; fewer cost less, but fail more often
_CHUNK_ROWS = 256  # pixels of the sample that are transposed together, within the cache
_STRIP_ELEMENTS = 2**18  # a MiB in float32: large enough to hide the cost of a call, small enough for the cache
_STRIP_ROWS = 1024  # bounds the rounding of a strip's float32 sum
_PASSES = 3  # guesses before slices are read in blocks
_BLOCK_SLICES = 16  # float32 values in a cache line: slices that are read together


class AnchoredSlices(NamedTuple):
    """What the anchor rule decided.

    Attributes:
        kept: indices of the kept slices, ascending, always with 0.
        distances: one value a slice, in the units of the image: the mean absolute difference to the anchor that the
            slice was compared with, 0.0 for the first. Where slices are the fastest axis in memory and voxels fit into
            float32, the mean is a sum in float32 and its relative error about 1e-7; elsewhere it is within float64
            rounding. By the mean alone, a slice after the first is kept exactly where its distance is greater than γ.
    """

    kept: list[int]
    distances: list[float]


@torch.no_grad()
def anchor_slices(image: torch.Tensor, axis: int, threshold: float) -> AnchoredSlices:
    """Decide which slices the anchor rule keeps.

    The first slice is kept. A later one is kept, and becomes the anchor, when the mean absolute difference to the
    current anchor is greater than ``threshold``. Voxels and differences are float64 (64-bit integers beyond 2**53 are
    rounded); the mean is the exact mean of the differences rounded once, so that order, layout and device do not matter
    and a constant step equal to ``threshold`` is never greater.

    Args:
        image: any dtype, layout and device, with at least one slice of at least one pixel.
        axis: axis along which slices lie.
        threshold: γ, in the units of ``image``, at least 0.

    Raises:
        NonFiniteVoxelsError: a slice or its anchor holds NaN or infinite voxels.
    """
    depth = image.shape[axis]
    rows = _as_rows(image, axis)
    reader = _reader(image, axis, rows)
    decided = AnchoredSlices([0], [0.0])
    if rows is not None:
        measure = _Measurement(rows, threshold)
        for _ in range(_PASSES):
            _follow_guess(measure, reader, decided)
    for index in range(len(decided.distances), depth):
        distance = _mean(reader.difference(index, decided.kept[-1]), threshold)
        decided.distances.append(distance)
        if distance > threshold:
            decided.kept.append(index)
    return decided


@torch.no_grad()
def guarded_slices(
    image: torch.Tensor, axis: int, threshold: float, block: tuple[int, int], guard_threshold: float
) -> AnchoredSlices:
    """Decide which slices the anchor rule, or its guard for small lesions, keeps.

    As :func:`anchor_slices`, but a slice is also kept, and becomes the anchor, when in some channel and block of pixels
    the mean difference to the anchor is above ``guard_threshold`` or below its negative. Signed differences are
    averaged, so that noise cancels and a lesion does not. Block means are float64 and rounded as any sum is.

    Args:
        image: (C, H, W, D) with D at ``axis``; any dtype, layout and device, without empty axes.
        axis: axis along which slices lie.
        threshold: γ, in the units of ``image``, at least 0.
        block: pixels of a block along either axis of a slice, at most the slice's; the last blocks may hold fewer.
        guard_threshold: in the units of ``image``, above 0.

    Raises:
        NonFiniteVoxelsError: a slice or its anchor holds NaN or infinite voxels.
    """
    reader = _reader(image, axis, _as_rows(image, axis))
    plane = image.movedim(axis, 0).shape[1:]
    decided = AnchoredSlices([0], [0.0])
    for index in range(1, image.shape[axis]):
        difference = reader.signed_difference(index, decided.kept[-1])
        # the mean comes first, for it refuses NaN
        distance = _mean(difference.abs(), threshold)
        decided.distances.append(distance)
        if distance > threshold or _block_mean(difference.reshape(plane), block) > guard_threshold:
            decided.kept.append(index)
    return decided


def _block_mean(difference: torch.Tensor, block: tuple[int, int]) -> float:
    """Largest absolute value of the means over the blocks of a (C, H, W) difference."""
    return float(avg_pool2d(difference, block, ceil_mode=True, count_include_pad=False).abs_().max())


def _follow_guess(measure: _Measurement, reader: _SliceReader, decided: AnchoredSlices) -> None:
    """Decide the slices that come next, while the guessed anchors are right; extend ``decided``."""
    start = len(decided.distances)
    if start == measure.depth:
        return
    anchors, means = measure.guess_and_measure(decided.kept[-1], start)
    for index, (anchor, mean) in enumerate(zip(anchors, means, strict=True), start):
        if anchor != decided.kept[-1]:
            return
        distance = mean if measure.decides(mean) else _mean(reader.difference(index, anchor), measure.threshold)
        decided.distances.append(distance)
        if distance > measure.threshold:
            decided.kept.append(index)


def _as_rows(image: torch.Tensor, axis: int) -> torch.Tensor | None:
    """Return (pixels, slices) as a view where slices are the fastest axis in memory, else None."""
    last = image.movedim(axis, -1)
    if last.stride(-1) != 1 or last.shape[-1] == 1:
        return None
    try:
        return last.view(-1, last.shape[-1])
    except RuntimeError:  # pixels that no single stride reaches, e.g. a crop
        return None


def _reader(image: torch.Tensor, axis: int, rows: torch.Tensor | None) -> _SliceReader:
    """A reader of the slices of ``image``, whose ``rows`` are those of :func:`_as_rows`."""
    return _SliceReader(image.movedim(axis, 0) if rows is None else rows.t(), blocks=rows is not None)


def _mean(difference: torch.Tensor, threshold: float) -> float:
    """Mean of float64 ``difference``, on the same side of ``threshold`` as the exact mean rounded once to float64."""
    count = difference.numel()
    mean = float(difference.sum()) / count
    if not isfinite(mean):
        raise NonFiniteVoxelsError(
            "the anchor filter met NaN or infinite voxels (or differences beyond float64): run CheckVolume first."
        )
    # a sum of ``count`` non-negative terms in any order is within (count - 1) roundings of the exact one
    bound = mean * (count + 2) * 2.0**-52
    return mean if abs(mean - threshold) > bound else exact_mean(difference)


def exact_mean(values: torch.Tensor) -> float:
    """Return the mean of finite float64 ``values`` as if computed without rounding, then rounded once to float64.

    Values are whole numbers below 2**53 times a power of two. Upper and lower halves of these numbers are summed by
    power; both sums stay below 2**53 for up to 2**26 values, so float64 holds them exactly, in any order.
    """
    low, high = (float(extreme) for extreme in torch.aminmax(values))
    if low == high:  # a constant step: nothing to sum
        return low
    total = Fraction(0)
    for part in values.reshape(-1).split(2**26):
        mantissa, exponent = torch.frexp(part)
        digits = (mantissa * 2.0**53).to(torch.int64)
        lowest = int(exponent.min())
        power = (exponent - lowest).to(torch.int64)
        upper, lower = (
            torch.bincount(power, weights=half.to(torch.float64)).tolist()
            for half in (torch.div(digits, 2**26, rounding_mode="trunc"), torch.fmod(digits, 2**26))
        )
        whole = sum(
            ((int(up) << 26) + int(low)) << shift for shift, (up, low) in enumerate(zip(upper, lower, strict=True))
        )
        total += whole * Fraction(2) ** (lowest - 53)
    return float(total / values.numel())


class _Measurement:
    """Guesses anchors on a sample of the pixels, and measures slices against them in one pass over memory.

    Args:
        rows: (pixels, slices), slices the fastest in memory.
        threshold: γ.
    """

    def __init__(self, rows: torch.Tensor, threshold: float) -> None:
        self.rows = rows
        self.threshold = threshold
        self.depth = rows.shape[1]
        self.dtype = torch.float32 if rows.dtype in _EXACT_IN_FLOAT32 else torch.float64
        # at most a ninth of the pixels, by an odd step that wanders over the image
        spread = rows[:: max(9, len(rows) // _SAMPLED_PIXELS | 1)]
        self.sampled, self.sample = len(spread), _slices_first(spread, self.dtype)
        self.height = max(1, min(_STRIP_ROWS, _STRIP_ELEMENTS // self.depth))
        # rounding of a difference, of a strip's sum in any order, and of the sum over strips; each taken twofold
        strips = len(rows) // self.height + 1
        self.relative_error = (self.height + 2) * torch.finfo(self.dtype).eps + (strips + 4) * 2.0**-51

    def guess_and_measure(self, anchor: int, start: int) -> tuple[list[int], list[float]]:
        """Guessed anchor of each slice from ``start`` on, and the mean absolute difference to it.

        Args:
            anchor: the true anchor of slice ``start``.
            start: first slice to measure.
        """
        anchors = []
        for index in range(start, self.depth):
            anchors.append(anchor)
            if float((self.sample[:, index] - self.sample[:, anchor]).abs_().sum()) > self.threshold * self.sampled:
                anchor = index
        gathered = torch.as_tensor(anchors, device=self.rows.device)
        sums = torch.zeros(len(anchors), dtype=torch.float64, device=self.rows.device)
        buffer = torch.empty((self.height, len(anchors)), dtype=self.dtype, device=self.rows.device)
        for strip in self.rows.split(self.height):
            strip = strip.to(self.dtype)
            difference = buffer[: len(strip)]
            torch.index_select(strip, 1, gathered, out=difference)
            sums += difference.sub_(strip[:, start:]).abs_().sum(0)
        return anchors, (sums / len(self.rows)).tolist()

    def decides(self, mean: float) -> bool:
        """Whether a measured ``mean`` lies on the same side of γ as the exact one, whatever was rounded."""
        return isfinite(mean) and abs(mean - self.threshold) > mean * self.relative_error


def _slices_first(pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn (pixels, slices) into (chunks, slices, pixels of a chunk); the last chunk is filled up with zeros.

    Zeros add nothing to a difference, while leaving the last pixels out, an edge of the image, would bias the guess.
    """
    chunks = pixels.split(_CHUNK_ROWS)
    sample = pixels.new_zeros((len(chunks), pixels.shape[1], len(chunks[0])), dtype=dtype)
    for transposed, chunk in zip(sample, chunks, strict=True):
        transposed[:, : len(chunk)].copy_(chunk.to(dtype).contiguous().t())
    return sample


class _SliceReader:
    """Reads single slices; where they are interleaved in memory, a block of neighbors at a time.

    Args:
        slices: slices first.
        blocks: copy blocks of slices, so that a cache line is fetched once a block and not once a slice.
    """

    def __init__(self, slices: torch.Tensor, blocks: bool) -> None:
        self.slices = slices
        self.blocks = blocks
        self.start, self.block = 0, slices[:0]
        self.anchor_index = -1
        self.anchor = slices.new_empty(0)

    def difference(self, index: int, anchor: int) -> torch.Tensor:
        """Absolute difference of two slices in float64."""
        return self.signed_difference(index, anchor).abs_()

    def signed_difference(self, index: int, anchor: int) -> torch.Tensor:
        """Slice ``index`` less slice ``anchor`` in float64."""
        if anchor != self.anchor_index:
            self.anchor_index, self.anchor = anchor, self._read(anchor)
        if self.blocks and not self.start <= index < self.start + len(self.block):
            self.start, self.block = index, self._copy_block(index)
        return self._read(index).sub_(self.anchor)

    def _read(self, index: int) -> torch.Tensor:
        """A new float64 copy of a slice, from the block where it is there."""
        if self.start <= index < self.start + len(self.block):
            return self.block[index - self.start].to(torch.float64, copy=True)
        return self.slices[index].to(torch.float64, copy=True)

    def _copy_block(self, start: int) -> torch.Tensor:
        """A few slices from ``start`` on, each contiguous."""
        interleaved = self.slices[start : start + _BLOCK_SLICES]
        block = interleaved.new_empty(interleaved.shape)
        for first in range(0, block.shape[1], 4096):  # pieces whose cache lines stay until all slices have used them
            block[:, first : first + 4096] = interleaved[:, first : first + 4096]
        return block
