# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What vLLM's model classes share to take slices of which some tokens were dropped. Runs inside vLLM.

A slice is an image item with these fields; a request holds them for all of its slices together:

- ``image_embeds``: the rows of the kept tokens, ``(ΣK_i, width)``; DeepStack rows follow the token in the same row.
- ``kept_count``: K_i of each slice, ``(S,)``.
- ``kept_positions``: per kept token its rotary positions (time, row, column) from the start of its slice, flat
  ``(3·ΣK_i,)``.
- ``kept_extent``: how many positions each whole slice takes, ``(S,)``.
- ``kept_written``: 1 where the prompt's ids hold all that stands around a slice's tokens, 0 where the chat template
  leaves a part of it to the processor, as that of Gemma 3 does, ``(S,)``.

The prompt holds one placeholder a slice, which vLLM replaces by K_i of them. Where a connector hands the rows over, a
request leaves ``image_embeds`` out. The item's uuid is the hash of the slice
(:func:`~monai_medpruner.engines.vllm.pruned_request.slice_name`): vLLM keys its caches by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import DictEmbeddingItems
from vllm.multimodal.processing import PromptReplacement

from monai_medpruner.engines.vllm.pruned_request import SLICE_NAME, slice_name

__all__ = [
    "PRUNED_FIELDS",
    "check_names",
    "embed_rows",
    "is_pruned",
    "pruned_fields",
    "pruned_items",
    "pruned_mrope",
    "pruned_update",
    "row_width",
]

#: the fields, and whether they are needed to lay out the prompt
PRUNED_FIELDS = {
    "image_embeds": "values",
    "kept_count": "metadata",
    "kept_positions": "metadata",
    "kept_extent": "metadata",
    "kept_written": "metadata",
}


def is_pruned(data: Any) -> bool:
    """Whether the images of a request are pruned slices."""
    return isinstance(data, Mapping) and "kept_count" in data


def row_width(config: Any) -> int:
    """Return the width of a kept token's row, with the DeepStack rows that follow it.

    Args:
        config: of the model.
    """
    deepstack = getattr(getattr(config, "vision_config", None), "deepstack_visual_indexes", None) or ()
    return config.get_text_config().hidden_size * (1 + len(deepstack))


def pruned_fields(inputs: Mapping[str, torch.Tensor]) -> dict[str, MultiModalFieldConfig]:
    """Say how the fields of all slices are split into those of each."""
    counts = inputs["kept_count"].flatten()
    return {
        "image_embeds": MultiModalFieldConfig.flat_from_sizes("image", counts),
        "kept_count": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
        "kept_positions": MultiModalFieldConfig.flat_from_sizes("image", 3 * counts, keep_on_cpu=True),
        "kept_extent": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
        "kept_written": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
    }


def pruned_items(data: Mapping[str, Any], config: Any, rows_elsewhere: bool) -> DictEmbeddingItems:
    """Return a request's slices as vLLM's image items, after checks.

    What a caller may get wrong has to fail here, in the front end: inside the engine it would stop every request.

    Args:
        data: the fields.
        config: of the model.
        rows_elsewhere: whether ``image_embeds`` may be left out, since a connector hands the rows over.

    Raises:
        ValueError: a field is missing, or has another shape or range.
    """
    data = {name: data[name] for name in PRUNED_FIELDS if name in data}
    required = {name for name in PRUNED_FIELDS if name != "image_embeds" or not rows_elsewhere}
    if missing := sorted(required - data.keys()):
        raise ValueError(f"pruned slices need the fields {sorted(required)}, and {missing} are missing")
    for name in PRUNED_FIELDS.keys() - {"image_embeds"}:
        if not isinstance(data[name], torch.Tensor) or data[name].dtype != torch.int64:
            raise ValueError(f"{name} must hold whole numbers")
    _check_layout(data, config.get_text_config().max_position_embeddings)
    rows, shape = data.get("image_embeds"), (int(data["kept_count"].sum()), row_width(config))
    if rows is not None and (not isinstance(rows, torch.Tensor) or tuple(rows.shape) != shape):
        found = tuple(rows.shape) if isinstance(rows, torch.Tensor) else type(rows).__name__
        raise ValueError(f"expected image_embeds of shape {shape}, got {found}")
    if rows is not None and not (rows.is_floating_point() and bool(rows.isfinite().all())):
        raise ValueError("image_embeds must hold finite floating-point values")
    optional = {"image_embeds"} if rows_elsewhere else set()
    return DictEmbeddingItems(data, "image", required, pruned_fields, optional)


def _check_layout(data: Mapping[str, torch.Tensor], context: int) -> None:
    """Check counts and positions, none of which may be used before it was found small.

    Args:
        data: the fields.
        context: positions that the model has. vLLM's table of rotary positions has four times as many, so that text
            and answer still fit behind slices of so many.
    """
    counts, extents = data["kept_count"].flatten(), data["kept_extent"].flatten()
    positions, written = data["kept_positions"].flatten(), data["kept_written"].flatten()
    if not len(counts) == len(extents) == len(written) or not len(counts):
        raise ValueError("expected a kept_count, a kept_extent and a kept_written for each slice")
    if not bool(((counts > 0) & (counts <= len(positions))).all()) or len(positions) != 3 * int(counts.sum()):
        raise ValueError(f"expected a positive kept_count and 3 kept_positions for each token, got {len(positions)}")
    if not bool(((extents > 0) & (extents <= context)).all()) or int(extents.sum()) > context:
        raise ValueError(f"each kept_extent must be positive, and all together must be at most {context}")
    if not bool(((written == 0) | (written == 1)).all()):
        raise ValueError("kept_written must be 0 or 1")
    if not bool(((positions >= 0) & (positions < extents.repeat_interleave(3 * counts))).all()):
        raise ValueError("kept_positions must lie from 0 to below the kept_extent of their slice")


def check_names(inputs: Any) -> None:
    """Refuse pruned slices under another name than the hash of their content.

    vLLM keys its caches by the names, so a wrong one would give a slice's cached keys and values to another. vLLM also
    fills rows that are too narrow with zeros, which no check of shapes can see.

    Args:
        inputs: the ``ProcessorInputs`` of a request.

    Raises:
        ValueError: a name is missing, or is not the hash of its slice.
    """
    items = inputs.mm_data_items.get("image")
    if not isinstance(items, DictEmbeddingItems) or not is_pruned(items.data):
        return
    data = items.data
    names = list((inputs.mm_uuid_items or {}).get("image") or ())
    counts = data["kept_count"].flatten()
    if len(names) != len(counts) or not all(isinstance(one, str) and SLICE_NAME.fullmatch(one) for one in names):
        raise ValueError("each pruned slice needs the SHA-256 hash of its content as uuid")
    if "image_embeds" not in data:
        return  # the connector checks what it reads
    rows = data["image_embeds"].split(counts.tolist())
    positions = data["kept_positions"].reshape(-1, 3).split(counts.tolist())
    if names != [slice_name(*one) for one in zip(rows, positions, data["kept_extent"].flatten().tolist(), strict=True)]:
        raise ValueError("the uuid of a pruned slice is not the hash of its rows, positions and extent")


def pruned_update(stock: Callable[[int], Any], items: Sequence[Any], target: Any, token: int) -> PromptReplacement:
    """Return how the placeholder of an image is replaced: by one for each kept token, or as in stock vLLM.

    Args:
        stock: the stock replacement, by the number of the image.
        items: the request's images.
        target: the stock target in the prompt.
        token: id of the placeholder.
    """

    def replacement(index: int) -> Any:
        item = items[index]
        return [token] * int(item["kept_count"].data) if "kept_count" in item else stock(index)

    return PromptReplacement(modality="image", target=target, replacement=replacement)


def embed_rows(arguments: dict[str, Any], dtype: torch.dtype) -> tuple[torch.Tensor, ...] | None:
    """Return the rows of each slice; None where the arguments of a model's ``embed_multimodal`` hold no pruned ones."""
    counts = arguments.get("kept_count")
    return None if counts is None else arguments["image_embeds"].to(dtype).split(counts.flatten().tolist())


def pruned_mrope(input_tokens: Sequence[int], features: Sequence[Any]) -> tuple[torch.Tensor, int] | None:
    """Return the rotary positions of a prompt with pruned slices, and what follows them; None for any other prompt.

    Each kept token has the position that the caller gives it within its slice, and the text after a slice goes on
    where the whole slice ends.

    Returns:
        int64 ``(3, L)``, and the difference of the next position and L.
    """
    if not any(feature.data is not None and "kept_count" in feature.data for feature in features):
        return None
    parts, done, start = [], 0, 0

    def write_text(stop: int) -> None:
        nonlocal done, start
        length = stop - done
        parts.append(np.broadcast_to(np.arange(length), (3, length)) + start)
        done, start = stop, start + length

    for feature in sorted(features, key=lambda one: one.mm_position.offset):
        write_text(feature.mm_position.offset)
        positions = feature.data["kept_positions"].data.reshape(-1, 3).numpy()
        parts.append(positions.T + start)
        done += feature.mm_position.length
        start += int(feature.data["kept_extent"].data)
    write_text(len(input_tokens))
    # not the largest position: the last slice may have lost its last tokens
    return torch.from_numpy(np.concatenate(parts, axis=1)), start - len(input_tokens)
