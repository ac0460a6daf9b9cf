# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Received attention as two Triton kernels that never write a row of weights to memory.

Import this module only where Triton is installed; :func:`monai_medpruner.pruners.attention_received` does so itself.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["fused_attention_received"]

_TILE = 64  # queries or keys of a tile


@triton.jit
def _tile(base, start, length, width, stride, tile: tl.constexpr, padded: tl.constexpr):  # type: ignore[no-untyped-def]
    """Load rows ``start`` to ``start + tile``, zeros outside the matrix of ``length`` rows and ``width`` columns."""
    rows = start + tl.arange(0, tile)
    columns = tl.arange(0, padded)
    inside = (rows[:, None] < length) & (columns[None, :] < width)
    return tl.load(base + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _row_normalizers(  # type: ignore[no-untyped-def]
    query, key, normalizers, scale, length, width, tile: tl.constexpr, padded: tl.constexpr
):
    """Write the log of the softmax denominator of each query, with a running maximum over tiles of keys."""
    matrix = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * tile
    offset = matrix * length * width
    queries = _tile(query + offset, first, length, width, width, tile, padded)
    largest = tl.full([tile], float("-inf"), tl.float32)
    total = tl.zeros([tile], tl.float32)
    for start in range(0, length, tile):
        keys = _tile(key + offset, start, length, width, width, tile, padded)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        scores = tl.where((start + tl.arange(0, tile))[None, :] < length, scores, float("-inf"))
        maximum = tl.maximum(largest, tl.max(scores, 1))
        total = total * tl.exp(largest - maximum) + tl.sum(tl.exp(scores - maximum[:, None]), 1)
        largest = maximum
    rows = first + tl.arange(0, tile)
    tl.store(normalizers + matrix * length + rows, largest + tl.log(total), mask=rows < length)


@triton.jit
def _column_sums(  # type: ignore[no-untyped-def]
    query, key, normalizers, received, scale, length, width, tile: tl.constexpr, padded: tl.constexpr
):
    """Write the sum over all queries of the weights of each key."""
    matrix = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * tile
    offset = matrix * length * width
    keys = _tile(key + offset, first, length, width, width, tile, padded)
    total = tl.zeros([tile], tl.float32)
    for start in range(0, length, tile):
        queries = _tile(query + offset, start, length, width, width, tile, padded)
        rows = start + tl.arange(0, tile)
        # weights of rows outside the matrix: exp(-inf) = 0
        normalizer = tl.load(normalizers + matrix * length + rows, mask=rows < length, other=float("inf"))
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        total += tl.sum(tl.exp(scores - normalizer[:, None]), 0)
    columns = first + tl.arange(0, tile)
    tl.store(received + matrix * length + columns, total, mask=columns < length)


def fused_attention_received(query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    """Compute :func:`monai_medpruner.pruners.attention_received` in two passes over tiles.

    The first pass finds each row's softmax denominator, as flash attention does (arXiv 2205.14135); the second sums
    the weights of each column. Memory beyond the inputs is two float32 numbers a token and head.

    Args:
        query: shape ``(..., heads, M, d)``, float32, float16 or bfloat16, on a GPU.
        key: keys of the same shape and type.
        scale: factor of the dot products.

    Returns:
        Scores of shape ``(..., M)``, float32; within 1e-3 relative of the plain route.
    """
    heads, length, width = query.shape[-3:]
    queries, keys = (one.reshape(-1, length, width).contiguous() for one in (query, key))
    normalizers = torch.empty(queries.shape[:2], dtype=torch.float32, device=query.device)
    received = torch.empty_like(normalizers)
    grid = (len(queries), triton.cdiv(length, _TILE))  # the first axis has no limit that matters
    sizes = {"tile": _TILE, "padded": max(triton.next_power_of_2(width), 16)}
    _row_normalizers[grid](queries, keys, normalizers, scale, length, width, **sizes)
    _column_sums[grid](queries, keys, normalizers, received, scale, length, width, **sizes)
    return received.reshape(*query.shape[:-3], heads, length).mean(-2)
