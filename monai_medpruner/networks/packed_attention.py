# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices of one size attend in one call, where a stock encoder loops over them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

__all__ = ["packed_attention"]

_PACKED = "medpruner_packed_flash_layout"


@contextmanager
def packed_attention(configs: list[Any]) -> Iterator[None]:
    """Let encoders that loop over slices under SDPA attend to slices of one size in one call while the block runs.

    transformers hands all segments at once, with their boundaries, to an attention whose name holds "flash".
    """
    switched = [config for config in configs if config._attn_implementation == "sdpa"]
    if not switched:
        yield
        return
    ALL_ATTENTION_FUNCTIONS[_PACKED] = _packed_sdpa
    try:
        for config in switched:
            config._attn_implementation = _PACKED
        yield
    finally:
        for config in switched:
            config._attn_implementation = "sdpa"
        del ALL_ATTENTION_FUNCTIONS[_PACKED]


def _packed_sdpa(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within segments: ``(1, heads, ΣM, d)`` -> ``(1, ΣM, heads, d)``, runs of equal length in one call."""
    outputs = []
    start = 0
    for length, run in groupby(cu_seq_lens_q.diff().tolist()):
        count = len(list(run))
        parts = (part[0, :, start : start + count * length] for part in (query, key, value))
        queries, keys, values = (part.unflatten(1, (count, length)).transpose(0, 1) for part in parts)
        attended = scaled_dot_product_attention(queries, keys, values, scale=scaling)
        outputs.append(attended.transpose(1, 2).flatten(0, 1))
        start += count * length
    return torch.cat(outputs)[None], None
