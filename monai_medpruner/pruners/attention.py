# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""How much attention each token receives, without ever holding the attention matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch

from monai_medpruner.errors import SettingsError
from monai_medpruner.terminal_text import package_logger

__all__ = ["attention_received", "class_attention"]

logger = package_logger(__name__)

#: a fused route gives the scores of queries, keys and a scale
FusedRoute = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
_FUSED_TOLERANCE = 1e-3  # relative, against the plain route
_TOKENS_IN_TURN = 128  # fewer, and the loop over heads costs more than it saves
_FUSED_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_WIDEST_HEAD = 256  # a tile of wider heads does not fit a GPU's shared memory


@torch.no_grad()  # autograd would store every block of rows, in sum the whole matrix
def attention_received(
    query: torch.Tensor, key: torch.Tensor, scale: float | None = None, chunk: int = 256
) -> torch.Tensor:
    """Attention that each of M tokens receives, relative to uniform (MedPruner, eq. 3, times M).

    With ``S = softmax(scale * query @ key.T)`` per head, token j scores the mean over heads of ``sum_i S[i, j]``. Each
    row of S sums to one, so the scores average exactly 1: a token at 1 receives what uniform attention would give it.

    The rows of S are computed ``chunk`` at a time and summed at once, each against all keys, so the result is exact and
    the largest temporary is ``heads * chunk * M`` numbers instead of ``heads * M * M``, on a CPU ``chunk * M``. On a
    CUDA device with Triton, a fused kernel does the same without a temporary, within 1e-3 relative.

    Args:
        query: queries, shape ``(..., heads, M, d)``, any floating type, after rotary embedding where there is one.
        key: keys of the same shape.
        scale: factor of the dot products; ``d ** -0.5`` where None.
        chunk: query rows computed at a time; bounds the memory, not the result.

    Returns:
        Scores of shape ``(..., M)``, float32 also under autocast, at least 0, with mean 1 over the last axis; no
        gradient flows through them.

    Raises:
        SettingsError: shapes differ, have fewer than three axes, or ``chunk`` is not positive.
    """
    if query.shape != key.shape or query.ndim < 3:
        raise SettingsError(
            f"query and key must share one shape (..., heads, M, d), got {tuple(query.shape)} and {tuple(key.shape)}"
        )
    if chunk < 1:
        raise SettingsError(f"chunk must be at least 1, got {chunk}")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    fits = query.dtype == key.dtype and query.dtype in _FUSED_TYPES and query.shape[-1] <= _WIDEST_HEAD
    if query.is_cuda and fits and query.numel():
        fused = _fused_route(query.device, query.dtype)
        if fused is not None:
            return fused(query, key, scale)
    in_turn = query.device.type == "cpu" and query.shape[-2] >= _TOKENS_IN_TURN
    route = _received_head_by_head if in_turn else _received_in_chunks
    return route(query, key, scale, chunk)


def _received_head_by_head(query: torch.Tensor, key: torch.Tensor, scale: float, chunk: int) -> torch.Tensor:
    """Compute each head by itself, for a CPU: a block of its rows stays in the cache from the product to the sum."""
    heads, tokens, width = query.shape[-3:]
    received = torch.zeros(query.shape[:-3].numel(), tokens)
    block = torch.empty(min(chunk, tokens), tokens)
    pairs = zip(query.reshape(-1, heads, tokens, width), key.reshape(-1, heads, tokens, width), strict=True)
    with torch.autocast("cpu", enabled=False):
        for scores, (queries, keys) in zip(received, pairs, strict=True):
            for one_query, one_key in zip(queries, keys, strict=True):
                columns = one_key.float().T
                for rows in (one_query.float() * scale).split(chunk):
                    weights = block[: len(rows)]
                    torch.mm(rows, columns, out=weights)
                    scores += torch.softmax(weights, dim=-1, out=weights).sum(0)
    return received.reshape(*query.shape[:-3], tokens) / heads


def _received_in_chunks(query: torch.Tensor, key: torch.Tensor, scale: float, chunk: int) -> torch.Tensor:
    keys = key.float().transpose(-1, -2)
    received = torch.zeros(query.shape[:-3] + query.shape[-2:-1], dtype=torch.float32, device=query.device)
    with torch.autocast(query.device.type, enabled=False):
        for rows in query.split(chunk, dim=-2):
            weights = torch.softmax((rows.float() * scale) @ keys, dim=-1)
            received += weights.sum(dim=(-3, -2))
    return received / query.shape[-3]


@cache
def _fused_route(device: torch.device, dtype: torch.dtype) -> FusedRoute | None:
    """Return the fused kernel if it runs on this device and gives the plain route's scores on a sample, else None."""
    if find_spec("triton") is None:
        return None
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 2, 3, 200, 72, generator=generator).to(device, dtype)
    expected = _received_in_chunks(query, key, 72**-0.5, 128)
    try:
        from monai_medpruner.pruners.fused_attention import fused_attention_received  # needs Triton

        found = fused_attention_received(query, key, 72**-0.5)
    except Exception as error:  # Triton compiles on first use: drivers, compilers and old devices fail in many ways
        logger.warning("received attention is computed without Triton, which failed: %s", error)
        return None
    difference = float(((found - expected).abs() / expected).max())
    if not difference <= _FUSED_TOLERANCE:
        logger.warning("received attention is computed without Triton, whose scores differ by %.1e", difference)
        return None
    return fused_attention_received


@torch.no_grad()
def class_attention(query: torch.Tensor, key: torch.Tensor, scale: float | None = None) -> torch.Tensor:
    """Attention that a class token pays to each of M tokens, relative to uniform: its weights times M.

    Args:
        query: of the class token, shape ``(..., heads, 1, d)``, any floating type.
        key: of the class token and, after it, of the M tokens, shape ``(..., heads, 1 + M, d)``.
        scale: factor of the dot products; ``d ** -0.5`` where None.

    Returns:
        Scores of shape ``(..., M)``, the mean over heads, float32 also under autocast. They sum to M times what the
        class token does not pay to itself.

    Raises:
        SettingsError: the shapes do not fit together.
    """
    expected = (*key.shape[:-2], 1, key.shape[-1])
    if key.ndim < 3 or query.shape != expected:
        raise SettingsError(
            f"query and key must have the shapes (..., heads, 1, d) and (..., heads, 1 + M, d), got "
            f"{tuple(query.shape)} and {tuple(key.shape)}"
        )
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    with torch.autocast(query.device.type, enabled=False):
        weights = torch.softmax((query.float() * scale) @ key.float().transpose(-1, -2), dim=-1)
    return weights[..., 0, 1:].mean(-2) * (key.shape[-2] - 1)
