# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Gemma 3 and MedGemma: pooling cells, image blocks that attend both ways, sliding windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from monai_medpruner.networks.families.base import EncodedSlices, FamilySummary, ModelFamily
from monai_medpruner.networks.families.patch_layout import square_cells

__all__ = ["Gemma3Family"]


class Gemma3Family(ModelFamily):
    """Gemma 3, MedGemma 1.0 and 1.5 (``Gemma3ForConditionalGeneration``).

    Every slice is a square of one size. SigLIP writes its patches row by row, and the projector averages square cells
    of them, 4 by 4 in the released models, into tokens: a token's patches do not follow one another. The tokens of a
    slice attend to each other both ways, which the model learns from ``token_type_ids``: pruned with the ids, they keep
    each slice one block. The language model's positions are one-dimensional, so kept tokens are renumbered.
    """

    model_types = ("gemma3",)
    summary = FamilySummary(
        serves="Gemma 3, MedGemma 1.0 and 1.5",
        merge="4×4 pooling cell",
        positions="renumbered, 1-D",
        scored_layer="last",
    )
    image_inputs = ("pixel_values",)
    token_inputs: ClassVar[dict[str, int]] = {"token_type_ids": 0}

    def image_marker(self, tokenizer: Any) -> str:
        """The begin-of-image token."""
        return tokenizer.convert_ids_to_tokens(self.model.config.boi_token_index)

    def image_text(self, tokenizer: Any, tokens: int) -> str:
        """Soft tokens between begin and end of image, set off by empty lines."""
        soft = super().image_text(tokenizer, tokens)
        end = tokenizer.convert_ids_to_tokens(self.model.config.eoi_token_index)
        return f"\n\n{self.image_marker(tokenizer)}{soft}{end}\n\n"

    @property
    def _projector(self) -> Any:
        return self.model.model.multi_modal_projector

    @property
    def attention_blocks(self) -> Sequence[Any]:
        """The attention of each block."""
        return [layer.self_attn for layer in self.model.model.vision_tower.encoder.layers]

    @property
    def patches_per_token(self) -> int:
        """The pooling cell's area."""
        return self._projector.kernel_size**2

    def queries_and_keys(
        self, attention: Any, args: tuple, kwargs: dict[str, Any]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Queries and keys of each slice of the batch; SigLIP has no rotary embedding."""
        hidden = args[0] if args else kwargs["hidden_states"]
        query, key = (
            layer(hidden).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for layer in (attention.q_proj, attention.k_proj)
        )
        return list(zip(query, key, strict=True))

    def group_patches(self, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Gather the pooling cells, which are squares of the raster."""
        return square_cells(patches, grid, self._projector.kernel_size)

    def token_grids(self, inputs: dict[str, Any]) -> list[tuple[int, int]]:
        """The same square for every slice."""
        side = self._projector.tokens_per_side
        return [(side, side)] * len(inputs["pixel_values"])

    def slice_inputs(self, inputs: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
        """One image is one row."""
        return {"pixel_values": inputs["pixel_values"][start:stop]}

    def encode(self, images: dict[str, Any]) -> EncodedSlices:
        """Tokens, and the pooled patches before norm and projection; single patches could not be pooled any more."""
        output = self.model.model.get_image_features(**images, return_dict=True)
        side = self._projector.patches_per_image
        raster = output.last_hidden_state.transpose(1, 2).unflatten(-1, (side, side))
        pooled = self._projector.avg_pool(raster).flatten(2).transpose(1, 2)
        return EncodedSlices(tokens=list(output.pooler_output), deepstack_features=[], encoder_tokens=list(pooled))

    def project(self, encoder_tokens: torch.Tensor) -> torch.Tensor:
        """The projector after its pooling: norm and matrix product."""
        normed = self._projector.mm_soft_emb_norm(encoder_tokens)
        return (normed @ self._projector.mm_input_projection_weight).type_as(encoder_tokens)

    def encoder_output(self, tokens: list[torch.Tensor], deepstack_features: list[list[torch.Tensor]]) -> ModelOutput:
        """One tensor ``(ΣK, 1, C)``: the model takes no list.

        It reads all rows in their order. Expansion for beams looks for the rows at which a prompt ends, and finds them
        only where every token is an entry of its own.
        """
        packed: dict[str, Any] = {"pooler_output": torch.cat(tokens)[:, None]}
        return BaseModelOutputWithPooling(**packed)
