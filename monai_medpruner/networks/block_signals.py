# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Signals that are read off the blocks of the vision encoder while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from monai_medpruner.errors import NonFiniteAttentionError
from monai_medpruner.networks.families import ModelFamily
from monai_medpruner.pruners import (
    BlockSignal,
    ClassAttention,
    HiddenStates,
    Keys,
    ReceivedAttention,
    Signal,
    attention_received,
    class_attention,
)

__all__ = ["block_signals", "capture_blocks", "capture_inputs"]

#: positional and named arguments of each call of a module
Calls = list[tuple[tuple, dict[str, Any]]]
#: what names a block: a signal's field
Block = int | float | None


@contextmanager
def capture_blocks(family: ModelFamily, signals: Iterable[BlockSignal]) -> Iterator[dict[Block, Calls]]:
    """Capture the arguments of the attention of those blocks that some signals are read off, by the signals' block.

    Raises:
        SettingsError: a block does not exist or attends within windows.
    """
    captured: dict[Block, Calls] = {signal.block: [] for signal in signals}
    with ExitStack() as stack:
        for block, calls in captured.items():
            stack.enter_context(capture_inputs(family.attention_block(block), calls))
        yield captured


@contextmanager
def capture_inputs(module: nn.Module, captured: Calls) -> Iterator[None]:
    """Append the arguments of a module's forward to a list while the block runs in this thread."""
    owner = threading.get_ident()

    def remember(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if threading.get_ident() == owner:
            captured.append((args, dict(kwargs)))

    handle = module.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def block_signals(
    family: ModelFamily,
    signals: Iterable[BlockSignal],
    captured: Mapping[Block, Calls],
    grids: list[tuple[int, int]],
    inside: list[torch.Tensor] | None = None,
) -> dict[Signal, torch.Tensor]:
    """Compute signals from what was captured; see :mod:`monai_medpruner.pruners.signals` for what each one is.

    Args:
        family: of the model.
        signals: to be computed.
        captured: the calls of each block's attention, from :func:`capture_blocks`.
        grids: rows and columns of each slice's tokens.
        inside: per slice, bool ``(N_i,)`` on the CPU: the tokens whose patches were encoded; None if all were.

    Returns:
        Per signal ``(S, M, ...)``, padded with zeros, which also stand for tokens that were not encoded.

    Raises:
        NonFiniteAttentionError: the attention overflowed in the model's type.
        SettingsError: the encoder has no class token and a signal needs one.
    """
    read = _Reader(family, captured, grids, inside)
    found: dict[Signal, torch.Tensor] = {signal: _READERS[type(signal)](read, signal.block) for signal in signals}
    attention = [values for signal, values in found.items() if isinstance(signal, (ReceivedAttention, ClassAttention))]
    if attention and not torch.stack([values.isfinite().all() for values in attention]).all():
        raise NonFiniteAttentionError(
            f"the vision encoder's attention overflowed in {str(family.model.dtype).removeprefix('torch.')}: use "
            "bfloat16 or float32"
        )
    return found


class _Reader:
    """Reads signals off captured calls; queries and keys of a block are computed once."""

    def __init__(
        self,
        family: ModelFamily,
        captured: Mapping[Block, Calls],
        grids: list[tuple[int, int]],
        inside: list[torch.Tensor] | None,
    ) -> None:
        self.family = family
        self.captured = captured
        self.grids = grids
        self.inside = inside
        self._pairs: dict[Block, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def received_attention(self, block: Block) -> torch.Tensor:
        return self._per_token(self._queries_and_keys(block), attention_received)

    def class_attention(self, block: Block) -> torch.Tensor:
        attention = self.family.attention_block(block)
        pairs = [pair for call in self.captured[block] for pair in self.family.class_queries_and_keys(attention, *call)]
        return self._per_token(pairs, class_attention)

    def keys(self, block: Block) -> torch.Tensor:
        return self._per_token(self._queries_and_keys(block), lambda _, key: key.float().mean(1).transpose(-1, -2))

    def hidden_states(self, block: Block) -> torch.Tensor:
        states = [(one,) for call in self.captured[block] for one in self.family.hidden_states(*call)]
        return self._per_token(states, lambda hidden: hidden.float().transpose(-1, -2))

    def _queries_and_keys(self, block: Block) -> list[tuple[torch.Tensor, torch.Tensor]]:
        if block not in self._pairs:
            attention = self.family.attention_block(block)
            self._pairs[block] = [
                pair for call in self.captured[block] for pair in self.family.queries_and_keys(attention, *call)
            ]
        return self._pairs[block]

    def _per_token(self, slices: Iterable[tuple[torch.Tensor, ...]], per_patch: Callable[..., torch.Tensor]) -> Any:
        """Stack slices of one size, compute ``(S', M)`` or ``(S', d, M)`` per patch, and average each token's patches.

        Returns:
            ``(S, N)`` or ``(S, N, d)``, padded with zeros.
        """
        if self.inside is not None:
            return self._per_token_inside(slices, per_patch, self.inside)
        values: list[torch.Tensor] = []
        for grid, group in groupby(zip(slices, self.grids, strict=True), key=lambda item: item[1]):
            stacked = map(torch.stack, zip(*(parts for parts, _ in group), strict=True))
            averaged = self.family.group_patches(per_patch(*stacked), grid).mean(-1)
            values += averaged if averaged.ndim == 2 else averaged.transpose(-1, -2)
        return pad_sequence(values, batch_first=True)

    def _per_token_inside(
        self, slices: Iterable[tuple[torch.Tensor, ...]], per_patch: Callable[..., torch.Tensor], inside: list[Any]
    ) -> Any:
        """The same slice by slice, where patches were left out: those that were encoded go to their places."""
        values: list[torch.Tensor] = []
        for parts, grid, mask in zip(slices, self.grids, inside, strict=True):
            found = per_patch(*(one[None] for one in parts))[0]
            patches = found.shape[-1] // int(mask.sum())
            places = self.family.inside_patches(mask, grid, patches).to(found.device)
            whole = found.new_zeros((*found.shape[:-1], len(mask) * patches)).index_copy(-1, places, found)
            averaged = self.family.group_patches(whole[None], grid).mean(-1)[0]
            values.append(averaged if averaged.ndim == 1 else averaged.transpose(-1, -2))
        return pad_sequence(values, batch_first=True)


_READERS: dict[type[BlockSignal], Callable[[_Reader, Block], torch.Tensor]] = {
    ReceivedAttention: _Reader.received_attention,
    ClassAttention: _Reader.class_attention,
    HiddenStates: _Reader.hidden_states,
    Keys: _Reader.keys,
}
