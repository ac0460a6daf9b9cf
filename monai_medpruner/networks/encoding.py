# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices to pruned tokens: the stock encoder, the signals read off its attention, the pruner."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from monai_medpruner.errors import SettingsError
from monai_medpruner.networks.block_signals import block_signals, capture_blocks
from monai_medpruner.networks.families import EncodedSlices, ModelFamily
from monai_medpruner.networks.packed_attention import packed_attention
from monai_medpruner.networks.pruned_slices import PrunedSlices
from monai_medpruner.networks.scored_slices import ScoredSlices
from monai_medpruner.networks.slice_signals import slice_signals
from monai_medpruner.pruners import (
    BlockSignal,
    PrunedTokens,
    QuestionEmbedding,
    ReceivedAttention,
    Signal,
    SliceTokens,
    TokenPruner,
)
from monai_medpruner.results import SliceRecord, StageTimes

__all__ = ["encode_and_prune_each", "encode_scored", "prune_scored"]

# patches encoded at once where no number of slices is given: the widest activations of an 8B model's encoder
# (4,304 numbers a patch) then take 0.3 GB in bfloat16
_PATCHES_AT_ONCE = 32768

# one encoder runs at a time: the capture hooks and the attention implementation belong to the model, not to a call
_encoding = threading.RLock()


@torch.no_grad()
def encode_scored(
    family: ModelFamily,
    pruners: Sequence[TokenPruner | None],
    inputs: dict[str, Any],
    vision_batch_size: int | None = None,
    slice_positions_mm: Sequence[float] | None = None,
    inside: Sequence[torch.Tensor] | None = None,
) -> ScoredSlices:
    """Encode slices and compute what some pruners ask for, so that :func:`prune_scored` can prune them later.

    The encoder's output of all slices stays in memory. For an 8B model with three further rows a token, 4,096 numbers
    wide in bfloat16, that is about 0.03 MB a token, or 0.8 GB for 100 slices of 256 tokens.

    Args:
        family: of the model.
        pruners: that are to be used later; the encoder's own tokens are kept where one of them merges these.
        inputs: holds the family's image inputs.
        vision_batch_size: slices encoded at once; None takes as many as hold 32,768 patches. It bounds the encoder's
            activations and does not change the result.
        slice_positions_mm: position of each slice along the slice axis, for pruners that ask for it.
        inside: per slice, bool ``(N_i,)``: the tokens whose patches are encoded, at least one; the others are left out
            of the encoder's sequence, and no pruner sees them. None encodes all.

    Raises:
        SettingsError: ``vision_batch_size`` is not positive, a signal cannot be computed, or there is no slice.
    """
    batches = _scored_batches(family, pruners, inputs, vision_batch_size, slice_positions_mm, inside)
    parts = [batch.needed_by(pruners) for batch in batches]
    if not parts:
        raise SettingsError("there are no slices to encode")
    return ScoredSlices.joined(parts)


@torch.no_grad()
def prune_scored(
    family: ModelFamily,
    pruner: TokenPruner | None,
    scored: ScoredSlices,
    question: torch.Tensor | None = None,
    max_tokens: int | None = None,
) -> PrunedSlices:
    """Prune slices that :func:`encode_scored` encoded, all of them together.

    Args:
        family: of the model.
        pruner: None keeps every token.
        scored: the slices, with the signals that the pruner needs.
        question: input embeddings of the question's tokens, ``(T, C)``, for a pruner that asks for them.
        max_tokens: limit for the tokens that the pruner keeps, of all slices together; None is no limit.

    Returns:
        What the pruner leaves. The time of the encoder stands in it.

    Raises:
        SettingsError: a signal is missing.
        BudgetError: the pruner keeps more than ``max_tokens`` at the least.
    """
    return _prune(family, pruner, scored, 0, question, max_tokens)


@torch.no_grad()
def encode_and_prune_each(
    family: ModelFamily,
    pruners: Sequence[TokenPruner | None],
    inputs: dict[str, Any],
    vision_batch_size: int | None = None,
    *,
    slice_positions_mm: Sequence[float] | None = None,
    question: torch.Tensor | None = None,
    max_tokens: int | None = None,
    inside: Sequence[torch.Tensor] | None = None,
) -> list[PrunedSlices]:
    """Encode slices once, batch by batch, and keep of each batch only what each pruner leaves.

    A pruner of whole volumes (:attr:`TokenPruner.whole_volume`) takes all slices of the call for one volume, whichever
    volumes, prompts or images of a conversation they belong to: encode each in a call of its own to keep them apart.
    For such a pruner, for one that needs the question, and under a limit the encoder's output of all slices stays in
    memory until the last is encoded, and they are padded to the longest and merged at once: about 0.1 MB a token for
    the model of :func:`encode_scored`, or 2.5 GB for 100 slices of 256 tokens.

    Args:
        family: of the model.
        pruners: None keeps every token.
        inputs: holds the family's image inputs.
        vision_batch_size: as in :func:`encode_scored`.
        slice_positions_mm: likewise.
        question: as in :func:`prune_scored`; the same for all pruners.
        max_tokens: limit for what each pruner keeps of all slices of the call; None is no limit.
        inside: as in :func:`encode_scored`.

    Returns:
        What each pruner leaves. The time of the encoder, which all share, stands in each.

    Raises:
        SettingsError: ``vision_batch_size`` is not positive, or a signal cannot be computed.
        BudgetError: a pruner keeps more than ``max_tokens`` at the least.
    """
    if question is None and any(pruner is not None and pruner.needs_question for pruner in pruners):
        raise SettingsError("a pruner needs the question's embeddings: give question")
    limited = max_tokens is not None
    at_once = [pruner is None or not (limited or pruner.whole_volume or pruner.needs_question) for pruner in pruners]
    later = [pruner for pruner, now in zip(pruners, at_once, strict=True) if not now]
    parts: list[list[PrunedSlices]] = [[] for _ in pruners]
    waiting: list[ScoredSlices] = []
    start = 0
    for batch in _scored_batches(family, pruners, inputs, vision_batch_size, slice_positions_mm, inside):
        for pruner, now, pruned in zip(pruners, at_once, parts, strict=True):
            if now:
                pruned.append(_prune(family, pruner, batch, start))
        if later:
            waiting.append(batch.needed_by(later))
        start += len(batch.grids)
    if waiting:
        scored = ScoredSlices.joined(waiting)
        waiting.clear()
        for pruner, now, pruned in zip(pruners, at_once, parts, strict=True):
            if not now:
                pruned.append(_prune(family, pruner, scored, 0, question, max_tokens))
    return [PrunedSlices.joined(pruned) for pruned in parts]


def _scored_batches(
    family: ModelFamily,
    pruners: Sequence[TokenPruner | None],
    inputs: dict[str, Any],
    vision_batch_size: int | None,
    slice_positions_mm: Sequence[float] | None,
    inside: Sequence[torch.Tensor] | None,
) -> Iterator[ScoredSlices]:
    """Encode slices batch by batch and compute the signals that some pruner asks for, except the question."""
    if vision_batch_size is not None and vision_batch_size < 1:
        raise SettingsError(f"vision_batch_size must be at least 1, got {vision_batch_size}")
    grids = family.token_grids(inputs)
    patches_per_token = family.patches_per_token_in(inputs)
    wanted: frozenset[Signal] = frozenset().union(*(pruner.signals for pruner in pruners if pruner is not None))
    of_blocks = [signal for signal in wanted if isinstance(signal, BlockSignal)]
    before = StageTimes()
    with before.stage("select", family.model.device):
        known = slice_signals(family, wanted, inputs, grids, patches_per_token, slice_positions_mm)
    for start, stop in _batches(grids, patches_per_token, vision_batch_size):
        seconds, before = before, StageTimes()
        images = family.slice_inputs(inputs, start, stop)
        among = None if inside is None else [one.cpu() for one in inside[start:stop]]
        if among is not None:
            images = family.inside_inputs(images, among)
        encoded, signals = _encode_batch(family, images, grids[start:stop], of_blocks, seconds, among)
        signals |= {signal: values[start:stop] for signal, values in known.items()}
        yield ScoredSlices(encoded, grids[start:stop], patches_per_token, signals, seconds, among)


def _encode_batch(
    family: ModelFamily,
    images: dict[str, Any],
    grids: list[tuple[int, int]],
    wanted: Sequence[BlockSignal],
    seconds: StageTimes,
    inside: list[torch.Tensor] | None,
) -> tuple[EncodedSlices, dict[Signal, torch.Tensor]]:
    """Encode one batch of slices, compute signals of its blocks, and add the time of both."""
    device = family.model.device
    with seconds.stage("encode", device), _encoding, packed_attention(family.vision_configs):
        with capture_blocks(family, wanted) as captured:
            encoded = family.encode(images)
    with seconds.stage("select", device):
        signals = dict[Signal, torch.Tensor](block_signals(family, wanted, captured, grids, inside).items())
    return (encoded if inside is None else _spread(encoded, inside)), signals


def _spread(encoded: EncodedSlices, inside: list[torch.Tensor]) -> EncodedSlices:
    """The encoder's output with the tokens that were left out as zeros in their places."""
    places = [one.nonzero().flatten() for one in inside]

    def whole(rows: list[torch.Tensor]) -> list[torch.Tensor]:
        return [
            one.new_zeros((len(mask), *one.shape[1:])).index_copy(0, place.to(one.device), one)
            for one, place, mask in zip(rows, places, inside, strict=True)
        ]

    layers = [whole(layer) for layer in encoded.deepstack_features]
    return EncodedSlices(whole(encoded.tokens), layers, whole(encoded.encoder_tokens))


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


def _prune(
    family: ModelFamily,
    pruner: TokenPruner | None,
    scored: ScoredSlices,
    start: int,
    question: torch.Tensor | None = None,
    max_tokens: int | None = None,
) -> PrunedSlices:
    """Prune encoded slices, the first of which has the number ``start``."""
    seconds = StageTimes(scored.seconds)
    with seconds.stage("select", family.model.device):
        tokens, layers, records = _kept(family, pruner, scored, start, question, max_tokens)
    return PrunedSlices(tokens, layers, records, seconds)


def _kept(
    family: ModelFamily,
    pruner: TokenPruner | None,
    scored: ScoredSlices,
    start: int,
    question: torch.Tensor | None,
    max_tokens: int | None,
) -> tuple[list[torch.Tensor], list[list[torch.Tensor]], list[SliceRecord]]:
    """The tokens of each slice that are kept, the DeepStack rows that go with them, and the slices' records."""
    encoded = scored.encoded
    if pruner is None and scored.inside is not None:
        return _kept_inside(scored, scored.inside)
    if pruner is None:
        return encoded.tokens, encoded.deepstack_features, [SliceRecord.unpruned(grid) for grid in scored.grids]
    pruned = pruner(_slice_tokens(pruner, scored, start, question), max_tokens)
    importance = scored.signals[ReceivedAttention()] if ReceivedAttention() in pruner.signals else None
    # the mask is on the host already: on the device, each use of it would be a transfer
    keep, counts, records = _records(scored.grids, pruned, importance)
    places = keep.flatten().nonzero().flatten().to(pruned.tokens.device)
    kept = pruned.tokens.flatten(0, 1)[places]
    tokens = (family.project(kept) if pruner.merge_space == "encoder" else kept).split(counts)
    layers = [list(pad_sequence(rows, True).flatten(0, 1)[places].split(counts)) for rows in encoded.deepstack_features]
    return list(tokens), layers, records


def _kept_inside(
    scored: ScoredSlices, inside: list[torch.Tensor]
) -> tuple[list[torch.Tensor], list[list[torch.Tensor]], list[SliceRecord]]:
    """All tokens that were encoded, the rows that go with them, and the slices' records."""
    places = [one.nonzero().flatten() for one in inside]
    parts = [scored.encoded.tokens, *scored.encoded.deepstack_features]
    tokens, *layers = ([one[place.to(one.device)] for one, place in zip(rows, places, strict=True)] for rows in parts)
    records = [
        SliceRecord(
            grid,
            primary=mask,
            contextual=torch.zeros_like(mask),
            merged_into=torch.where(mask, torch.arange(len(mask)), -1),
        )
        for grid, mask in zip(scored.grids, inside, strict=True)
    ]
    return tokens, layers, records


def _slice_tokens(pruner: TokenPruner, scored: ScoredSlices, start: int, question: torch.Tensor | None) -> SliceTokens:
    """What the pruner is given: the tokens that it merges, and its signals."""
    encoded = scored.encoded
    given: dict[Signal, torch.Tensor] = dict(scored.signals)
    if question is not None:
        given[QuestionEmbedding()] = question
    inside = [torch.ones(len(one), dtype=torch.bool, device=one.device) for one in encoded.tokens]
    if scored.inside is not None:
        inside = [mask.to(one.device) for mask, one in zip(scored.inside, inside, strict=True)]
    return SliceTokens(
        tokens=pad_sequence(encoded.encoder_tokens if pruner.merge_space == "encoder" else encoded.tokens, True),
        valid=pad_sequence(inside, True),
        grids=scored.grids,
        signals={signal: values for signal, values in given.items() if signal in pruner.signals},
        patches_per_token=scored.patches_per_token,
        numbers=[start + index for index in range(len(scored.grids))],
    )


def _records(
    grids: list[tuple[int, int]], pruned: PrunedTokens, importance: torch.Tensor | None
) -> tuple[torch.Tensor, list[int], list[SliceRecord]]:
    """The bool mask of the kept tokens ``(S, M)``, how many each slice has, and the records; one transfer."""
    filtered = torch.zeros_like(pruned.primary[:, 0]) if pruned.dropped is None else pruned.dropped
    parts = [pruned.primary.int(), pruned.contextual.int(), pruned.merged_into.int()]
    parts.append(filtered[:, None].expand_as(pruned.primary).int())
    if importance is not None:
        parts.append(importance.float().view(torch.int32))  # the bits of the numbers
    primary, contextual, merged_into, every, *bits = torch.stack(parts).cpu()
    fields = {"primary": primary.bool(), "contextual": contextual.bool(), "merged_into": merged_into.long()}
    if bits:
        fields["importance"] = bits[0].view(torch.float32)
    keep = fields["primary"] | fields["contextual"]
    counts, dropped = torch.stack([keep.sum(1), every[:, 0].long()]).tolist()
    records = [
        SliceRecord(grid, dropped=bool(gone), **{name: one[index, : grid[0] * grid[1]] for name, one in fields.items()})
        for index, (grid, gone) in enumerate(zip(grids, dropped, strict=True))
    ]
    return keep, counts, records
