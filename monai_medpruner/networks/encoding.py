# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices to pruned tokens: the stock encoder, the scores read off its attention, the pruner."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from monai_medpruner.errors import SettingsError
from monai_medpruner.networks.families import ModelFamily
from monai_medpruner.networks.scored_slices import ScoredSlices, scores_and_keys
from monai_medpruner.pruners import SliceTokens, TokenPruner
from monai_medpruner.results import SliceRecord, StageTimes

__all__ = ["PrunedSlices", "encode_and_prune", "encode_and_prune_each"]

# patches encoded at once where no number of slices is given: the widest activations of an 8B model's encoder
# (4,304 numbers a patch) then take 0.3 GB in bfloat16
_PATCHES_AT_ONCE = 32768

_PACKED = "medpruner_packed_flash_layout"
# one encoder runs at a time: the capture hook and the attention implementation belong to the model, not to a call
_encoding = threading.RLock()


@dataclass
class PrunedSlices:
    """The pruned tokens of some slices, ready for the language model; they do not depend on the question.

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


def encode_and_prune(
    family: ModelFamily, pruner: TokenPruner | None, inputs: dict[str, Any], vision_batch_size: int | None = None
) -> PrunedSlices:
    """Encode slices batch by batch and keep of each only what the pruner leaves.

    A pruner of whole volumes (:attr:`TokenPruner.whole_volume`) takes all slices of the call for one volume, whichever
    volumes, prompts or images of a conversation they belong to: encode each in a call of its own to keep them apart.
    ``vision_batch_size`` then bounds the encoder's activations alone: the output of all slices stays until the last is
    encoded, and they are padded to the longest and merged at once. For an 8B model with three further rows a token,
    4,096 numbers wide in bfloat16, that is about 0.1 MB a token, or 2.5 GB for 100 slices of 256 tokens.

    Args:
        family: of the model.
        pruner: None keeps every token.
        inputs: holds the family's image inputs.
        vision_batch_size: slices encoded at once; None takes as many as hold 32,768 patches. It bounds the memory and
            does not change the result.

    Raises:
        SettingsError: ``vision_batch_size`` is not positive.
    """
    return encode_and_prune_each(family, [pruner], inputs, vision_batch_size)[0]


@torch.no_grad()
def encode_and_prune_each(
    family: ModelFamily,
    pruners: Sequence[TokenPruner | None],
    inputs: dict[str, Any],
    vision_batch_size: int | None = None,
) -> list[PrunedSlices]:
    """Encode slices once and prune them in several ways, as :func:`encode_and_prune` does in one.

    Returns:
        What each pruner leaves. The time of the encoder, which all share, stands in each.
    """
    if vision_batch_size is not None and vision_batch_size < 1:
        raise SettingsError(f"vision_batch_size must be at least 1, got {vision_batch_size}")
    grids = family.token_grids(inputs)
    patches_per_token = family.patches_per_token_in(inputs)
    scored = any(pruner is not None and pruner.needs_attention for pruner in pruners)
    results = [PrunedSlices() for _ in pruners]
    later = [pruner for pruner in pruners if pruner is not None and pruner.whole_volume]
    waiting: list[ScoredSlices] = []
    for start, stop in _batches(grids, patches_per_token, vision_batch_size):
        spent = StageTimes()
        batch = _encode_batch(family, family.slice_inputs(inputs, start, stop), grids[start:stop], scored, spent)
        for result in results:
            result.seconds.add(spent)
        _prune_each(family, pruners, batch, patches_per_token, results, whole_volume=False)
        if later:
            waiting.append(batch.needed_by(later))
    if waiting:
        _prune_each(family, pruners, ScoredSlices.joined(waiting), patches_per_token, results, whole_volume=True)
    return results


def _prune_each(
    family: ModelFamily,
    pruners: Sequence[TokenPruner | None],
    batch: ScoredSlices,
    patches_per_token: int,
    results: list[PrunedSlices],
    whole_volume: bool,
) -> None:
    """Prune a batch with the pruners of whole volumes, or with all others; append what each leaves to its result."""
    for pruner, result in zip(pruners, results, strict=True):
        if (pruner is not None and pruner.whole_volume) == whole_volume:
            with result.seconds.stage("select", family.model.device):
                _prune_batch(family, pruner, batch, patches_per_token, result)


def _encode_batch(
    family: ModelFamily, images: dict[str, Any], grids: list[tuple[int, int]], scored: bool, spent: StageTimes
) -> ScoredSlices:
    """Encode one batch of slices, score their tokens where asked to, and add the time of both."""
    captured: list[tuple[tuple, dict[str, Any]]] = []
    device = family.model.device
    with spent.stage("encode", device), _encoding, packed_attention(family.vision_configs):
        with capture_inputs(family.scoring_attention, captured, scored):
            encoded = family.encode(images)
    with spent.stage("select", device):
        importance, keys = scores_and_keys(family, captured, grids) if scored else (None, None)
    return ScoredSlices(encoded, grids, importance, keys)


def _batches(
    grids: list[tuple[int, int]], patches_per_token: int, vision_batch_size: int | None
) -> Iterator[tuple[int, int]]:
    """Yield the start and stop of each batch of slices."""
    start = patches = 0
    for index, (rows, columns) in enumerate(grids):
        size = rows * columns * patches_per_token
        full = index - start == vision_batch_size if vision_batch_size else patches + size > _PATCHES_AT_ONCE
        if index > start and full:
            yield start, index
            start, patches = index, 0
        patches += size
    if grids:
        yield start, len(grids)


def _prune_batch(
    family: ModelFamily,
    pruner: TokenPruner | None,
    batch: ScoredSlices,
    patches_per_token: int,
    result: PrunedSlices,
) -> None:
    """Prune one encoded batch and append what is left to the result."""
    encoded, grids = batch.encoded, batch.grids
    if not result.deepstack_features:
        result.deepstack_features.extend([] for _ in encoded.deepstack_features)
    if pruner is None:
        result.tokens += encoded.tokens
        for layer, rows in zip(result.deepstack_features, encoded.deepstack_features, strict=True):
            layer += rows
        result.records += [SliceRecord.unpruned(grid) for grid in grids]
        return
    merged_before = pruner.merge_space == "encoder"
    valid = pad_sequence([torch.ones(len(one), dtype=torch.bool, device=one.device) for one in encoded.tokens], True)
    importance, keys = (batch.importance, batch.keys) if pruner.needs_attention else (None, None)
    pruned = pruner(
        SliceTokens(
            tokens=pad_sequence(encoded.encoder_tokens if merged_before else encoded.tokens, True),
            valid=valid,
            importance=importance,
            keys=keys,
            grids=grids,
            patches_per_token=patches_per_token,
            numbers=[len(result.records) + index for index in range(len(grids))],
        )
    )
    keep = pruned.keep
    counts = keep.sum(1).tolist()
    kept = pruned.tokens[keep]
    result.tokens += (family.project(kept) if merged_before else kept).split(counts)
    for layer, rows in zip(result.deepstack_features, encoded.deepstack_features, strict=True):
        layer += pad_sequence(rows, True)[keep].split(counts)
    primary, contextual, merged_into = (part.cpu() for part in (pruned.primary, pruned.contextual, pruned.merged_into))
    scores = None if importance is None else importance.cpu()
    for index, grid in enumerate(grids):
        own = (index, slice(grid[0] * grid[1]))
        result.records.append(
            SliceRecord(grid, primary[own], contextual[own], merged_into[own], None if scores is None else scores[own])
        )


@contextmanager
def capture_inputs(module: nn.Module, captured: list[tuple[tuple, dict[str, Any]]], active: bool) -> Iterator[None]:
    """Append the arguments of a module's forward to a list while the block runs in this thread."""
    if not active:
        yield
        return
    owner = threading.get_ident()

    def remember(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if threading.get_ident() == owner:
            captured.append((args, dict(kwargs)))

    handle = module.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


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
