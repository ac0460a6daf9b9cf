# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Shorten a prompt and all its per-token inputs to the kept tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from monai_medpruner.errors import PromptError
from monai_medpruner.networks.families import ModelFamily
from monai_medpruner.results import SliceRecord

__all__ = ["checked_inputs", "keep_mask", "prune_prompt", "slices_by_prompt"]

_IGNORED_LABEL = -100


def checked_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a model's inputs with an attention mask.

    Raises:
        PromptError: ``input_ids`` are missing, or there are inputs that cannot be pruned: videos, a compression mask
            for them, embeddings, or an attention mask per pair of tokens.
    """
    inputs = {name: value for name, value in inputs.items() if value is not None}
    if "input_ids" not in inputs:
        raise PromptError("input_ids are missing; embeddings alone do not show where the slices are, so pass input_ids")
    for name in ("inputs_embeds", "pixel_values_videos", "video_compression_mask", "mm_encoder_outputs"):
        if name in inputs:
            raise PromptError(f"{name} cannot be pruned; pass each slice as an image, as the model's processor does")
    ids = inputs["input_ids"]
    mask = inputs.setdefault("attention_mask", torch.ones_like(ids))
    if mask.shape != ids.shape:
        raise PromptError(
            f"the attention mask must have the shape of input_ids {tuple(ids.shape)}, got {tuple(mask.shape)}"
        )
    return inputs


def keep_mask(inputs: Mapping[str, Any], image_token_id: int, slices: list[torch.Tensor]) -> torch.Tensor:
    """Combine the masks of the slices into the mask of the prompts.

    Args:
        inputs: checked inputs, ids of shape ``(B, L)``.
        image_token_id: id of the placeholder of one visual token.
        slices: a bool mask of the kept tokens of each slice, in the order of the batch.

    Returns:
        Bool mask ``(B, L)``, False for dropped tokens and padding.

    Raises:
        PromptError: the number of placeholders is not the number of visual tokens.
    """
    keep = inputs["attention_mask"].bool()
    placeholders = (inputs["input_ids"] == image_token_id) & keep
    tokens = sum(len(one) for one in slices)
    if (count := int(placeholders.sum())) != tokens:
        raise PromptError(
            f"the prompts have {count} placeholders of visual tokens, but their slices have {tokens} tokens; make "
            "input_ids and images with the same processor call"
        )
    if slices:
        keep = keep.masked_scatter(placeholders, torch.cat(slices).to(keep.device))
    return keep


def prune_prompt(
    inputs: Mapping[str, Any],
    keep: torch.Tensor,
    family: ModelFamily,
    grids: list[tuple[int, int]],
    preserve_position_ids: bool | None = None,
) -> dict[str, Any]:
    """Shorten the prompts of a batch to the kept tokens, padded on the left to the longest prompt.

    Ids, attention mask, token types, labels and positions are shortened; the image inputs are left out.

    Args:
        inputs: checked inputs of shape ``(B, L)``.
        keep: bool mask ``(B, L)``.
        family: model family, which defines the per-token inputs and the positions.
        grids: rows and columns of each slice's tokens before pruning.
        preserve_position_ids: True keeps the positions of the unpruned prompt; False renumbers the kept tokens without
            gaps; None takes the family's default. Positions in ``inputs`` are always kept.

    Returns:
        The inputs of the language model, of shape ``(B, L')``. Entries that are not per token are passed on unchanged.
    """
    length = int(keep.sum(1).max())
    # a stable sort moves the kept columns to the end and keeps their order, so the tail is the left-padded prompt
    order = keep.int().argsort(dim=1, stable=True)[:, keep.shape[1] - length :]
    mask = keep.gather(1, order)
    fills = {**family.token_inputs, "input_ids": family.pad_token_id, "labels": _IGNORED_LABEL}
    pruned: dict[str, Any] = {}
    for name, value in inputs.items():
        if name in fills:
            pruned[name] = value.gather(1, order).masked_fill(~mask, fills[name])
        elif name not in family.image_inputs:
            pruned[name] = value
    if "labels" in pruned:
        # the token after padding has no predecessor to be predicted from
        pruned["labels"][:, 1:][~mask[:, :-1]] = _IGNORED_LABEL
    pruned["attention_mask"] = mask.to(inputs["attention_mask"].dtype)
    if "position_ids" in inputs:
        given = inputs["position_ids"]
        pruned["position_ids"] = given.gather(-1, order.expand(*given.shape[:-1], -1)) * pruned["attention_mask"]
    else:
        original = family.positions(dict(inputs), grids, order, pruned["attention_mask"])
        kept = family.preserves_position_ids if preserve_position_ids is None else preserve_position_ids
        counted = (pruned["attention_mask"].cumsum(-1) - 1).clamp(min=0).expand_as(original)
        pruned["position_ids"] = original if kept else counted
    return pruned


def slices_by_prompt(
    inputs: Mapping[str, Any], slices: Sequence[SliceRecord], image_token_id: int
) -> list[list[SliceRecord]]:
    """Assign the slices of a call to the prompts of its batch.

    Args:
        inputs: checked inputs, ids of shape ``(B, L)``.
        slices: records of all slices, in the order of the batch.
        image_token_id: id of the placeholder of one visual token.

    Returns:
        One list per prompt.

    Raises:
        PromptError: the placeholders of a slice are split between two prompts.
    """
    placeholders = (inputs["input_ids"] == image_token_id) & inputs["attention_mask"].bool()
    prompts: list[list[SliceRecord]] = []
    rest = iter(slices)
    for tokens in placeholders.sum(1).tolist():
        prompts.append([])
        while tokens > 0:
            prompts[-1].append(next(rest))
            tokens -= prompts[-1][-1].keep.numel()
        if tokens < 0:
            raise PromptError(
                "the placeholders of one slice are split between two prompts of the batch; make input_ids and images "
                "with the same processor call"
            )
    return prompts
