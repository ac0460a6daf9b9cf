# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The family of the toy model; docs/new_family.md shows this file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from monai_medpruner.networks.families import EncodedSlices, FamilySummary, ModelFamily


class ToyFamily(ModelFamily):
    """A token is the mean of two patches that are neighbors in a row; positions are one-dimensional."""

    model_types = ("toy_slices",)
    summary = FamilySummary(
        serves="the toy model of the tests", merge="1×2 mean", positions="renumbered", scored_layer="last"
    )
    image_inputs = ("pixel_values",)

    @property
    def attention_blocks(self) -> Sequence[Any]:
        return list(self.model.blocks)

    def queries_and_keys(
        self, attention: Any, args: tuple, kwargs: dict[str, Any]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        query, key, _ = attention.qkv(attention.norm(args[0])).unflatten(-1, (3, attention.heads, -1)).unbind(2)
        return list(zip(query.transpose(1, 2), key.transpose(1, 2), strict=True))

    @property
    def patches_per_token(self) -> int:
        return 2

    def group_patches(self, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        return patches.unflatten(-1, (-1, 2))

    def token_grids(self, inputs: dict[str, Any]) -> list[tuple[int, int]]:
        height, width = inputs["pixel_values"].shape[-2:]
        patch = self.model.config.patch_size
        return [(height // patch, width // patch // 2)] * len(inputs["pixel_values"])

    def slice_inputs(self, inputs: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
        return {"pixel_values": inputs["pixel_values"][start:stop]}

    def encode(self, images: dict[str, Any]) -> EncodedSlices:
        pooled = self.model.pool(images["pixel_values"])
        return EncodedSlices(tokens=list(self.project(pooled)), deepstack_features=[], encoder_tokens=list(pooled))

    def project(self, encoder_tokens: torch.Tensor) -> torch.Tensor:
        return self.model.projector(encoder_tokens)

    def encoder_output(self, tokens: list[torch.Tensor], deepstack_features: list[list[torch.Tensor]]) -> ModelOutput:
        packed: dict[str, Any] = {"pooler_output": tokens}
        return BaseModelOutputWithPooling(**packed)
