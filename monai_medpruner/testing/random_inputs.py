# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Random weights, prompts and tokens on which a model family or a pruner is checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from monai_medpruner.networks.families import ModelFamily
from monai_medpruner.pruners import (
    AnchorSlices,
    ClassAttention,
    HiddenStates,
    Keys,
    LocalContrast,
    QuestionEmbedding,
    ReceivedAttention,
    Signal,
    SlicePositions,
    SliceTokens,
    attention_received,
)

__all__ = ["padded_batch", "prompt_inputs", "random_slices", "randomize_weights"]

#: millimeters between two slices
_SPACING = 5.0


@torch.no_grad()
def randomize_weights(model: Any, seed: int = 5) -> None:
    """Give a tiny model weights that are large enough for every part of it to matter, in place.

    Freshly initialized models hardly look at their images, so that a comparison of their outputs says little.
    """
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.normal_(0, 0.15, generator=generator)
    embeddings = model.get_input_embeddings().weight
    if model.get_output_embeddings().weight is embeddings:
        # else a model repeats its last token, whatever it sees
        embeddings.div_(3)


def prompt_inputs(
    family: ModelFamily,
    image_processor: Any,
    tokenizer: Any,
    *volumes: Sequence[tuple[int, int]],
    seed: int = 0,
) -> dict[str, Any]:
    """What the model's processor would return for prompts about volumes of random slices.

    Args:
        family: of the model.
        image_processor: of the model.
        tokenizer: of the model.
        volumes: one a prompt: height and width of each of its slices in pixels.
        seed: of the pixels.

    Returns:
        ``input_ids`` and ``attention_mask``, padded on the left, the family's token inputs, and its image inputs.
    """
    random = np.random.default_rng(seed)
    images: list[Any] = []
    texts = []
    for sizes in volumes:
        volume = [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
        grids = family.token_grids(image_processor(images=volume, return_tensors="pt"))
        written = [
            f"Slice {index}:" + family.image_text(tokenizer, rows * columns)
            for index, (rows, columns) in enumerate(grids)
        ]
        images += volume
        texts.append("".join(written) + " Is there an effusion?")
    text = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    pixels = image_processor(images=images, return_tensors="pt")
    return {
        "input_ids": text["input_ids"],
        "attention_mask": text["attention_mask"],
        **family.token_types(text["input_ids"]),
        # an image processor may tell its processor more than the model takes
        **{name: pixels[name] for name in family.image_inputs},
    }


def random_slices(
    signals: Iterable[Signal], grids: Sequence[tuple[int, int]], seed: int = 0, channels: int = 6
) -> list[SliceTokens]:
    """Slices of random tokens one by one, four patches a token, with the signals that a pruner asks for.

    Args:
        signals: to be drawn. Attention is uneven; received attention and keys of one block belong together.
        grids: rows and columns of each slice's tokens.
        seed: of everything.
        channels: of the tokens and of all signals that have channels.
    """
    generator = torch.Generator().manual_seed(seed)
    signals = sorted(signals, key=repr)
    question = torch.randn(5, channels, generator=generator)
    result = []
    for number, (rows, columns) in enumerate(grids):
        length = rows * columns
        drawn = {
            block: [torch.randn(2, length, 8, generator=generator) * 3 for _ in range(2)]
            for block in dict.fromkeys(getattr(signal, "block", None) for signal in signals)
        }
        values: dict[Signal, torch.Tensor] = {}
        for signal in signals:
            query, key = drawn[getattr(signal, "block", None)]
            if isinstance(signal, ReceivedAttention):
                values[signal] = attention_received(query, key)[None]
            elif isinstance(signal, Keys):
                values[signal] = key.mean(0)[None]
            elif isinstance(signal, ClassAttention):
                values[signal] = torch.softmax(query.sum((0, 2)), 0)[None] * length
            elif isinstance(signal, HiddenStates):
                values[signal] = torch.randn(1, length, channels, generator=generator)
            elif isinstance(signal, LocalContrast):
                values[signal] = torch.rand(1, length, generator=generator)
            elif isinstance(signal, SlicePositions):
                values[signal] = torch.tensor([number * _SPACING])
            elif isinstance(signal, AnchorSlices):
                values[signal] = torch.tensor([number % 2 == 0])
            elif isinstance(signal, QuestionEmbedding):
                values[signal] = question
        result.append(
            SliceTokens(
                tokens=torch.randn(1, length, channels, generator=generator),
                valid=torch.ones(1, length, dtype=torch.bool),
                grids=[(rows, columns)],
                signals=values,
                patches_per_token=4,
                numbers=[number],
            )
        )
    return result


def padded_batch(slices: Sequence[SliceTokens], padding: int = 2, filler: float = 1e6) -> SliceTokens:
    """Slices that were made one by one as one batch, padded beyond the longest with values that must not matter.

    Args:
        slices: one slice each, all with the same signals.
        padding: how many tokens longer than the longest slice the batch is.
        filler: what tokens and signals hold at padding.
    """
    length = max(one.valid.shape[1] for one in slices) + padding

    def padded(parts: list[torch.Tensor], value: float) -> torch.Tensor:
        result = parts[0].new_full((len(parts), length, *parts[0].shape[2:]), value)
        for index, part in enumerate(parts):
            result[index, : part.shape[1]] = part[0]
        return result

    signals: dict[Signal, torch.Tensor] = {}
    for signal in slices[0].signals:
        parts = [one.signal(signal) for one in slices]
        if parts[0].ndim == 1:
            signals[signal] = torch.cat(parts)
        else:
            signals[signal] = parts[0] if isinstance(signal, QuestionEmbedding) else padded(parts, filler)
    return SliceTokens(
        tokens=padded([one.tokens for one in slices], filler),
        valid=padded([one.valid for one in slices], False),
        grids=[grid for one in slices for grid in one.grids],
        signals=signals,
        patches_per_token=slices[0].patches_per_token,
        numbers=[number for one in slices for number in one.numbers or ()],
    )
