# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""VideoLLaMA3 and Hulu-Med: 2x2 means before the projector, one-dimensional positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.video_llama_3.modeling_video_llama_3 import apply_rotary_pos_emb_vision
from transformers.utils import ModelOutput

from monai_medpruner.errors import PromptError
from monai_medpruner.networks.families.base import (
    EncodedSlices,
    FamilySummary,
    ModelFamily,
)
from monai_medpruner.networks.families.patch_layout import packed_inside, packed_segments, packed_slices

__all__ = ["VideoLlama3Family"]


class VideoLlama3Family(ModelFamily):
    """VideoLLaMA3 (``VideoLlama3ForConditionalGeneration``), and Hulu-Med once converted to it.

    The image processor decides how many patches are merged (``image_merge_sizes``: 1 for single images, 2 for the
    slices of a volume) and writes a slice's patches merge group by merge group. The encoder resamples each group to one
    token, for 2x2 its mean, before the projector, which works token by token: merging in the encoder's space is truly
    merging before the projector. The language model numbers tokens in one dimension, so kept tokens are renumbered.

    The model's own reduction of video tokens (frames that hardly differ) belongs to its video inputs, which are
    refused: it never works together with a pruner.
    """

    model_types = ("video_llama_3",)
    summary = FamilySummary(
        serves="VideoLLaMA3, Hulu-Med (converted)",
        merge="2×2 mean, as the image processor's merge size says",
        positions="renumbered, 1-D",
        scored_layer="last",
    )
    image_inputs = ("pixel_values", "image_grid_thw", "image_merge_sizes")

    def image_size_for(self, image_processor: Any, tokens: int) -> dict[str, Any]:
        """The makers' rule: an equal share of the pixels, and never fewer than 16 tokens."""
        area = (image_processor.patch_size * image_processor.merge_size) ** 2
        return {"size": {"shortest_edge": 16 * area, "longest_edge": max(tokens, 16) * area}}

    @property
    def attention_blocks(self) -> Sequence[Any]:
        """The attention of each block."""
        return [layer.self_attn for layer in self.model.model.vision_model.encoder.layers]

    @property
    def patches_per_token(self) -> int:
        """Four, as for the slices of a volume; inputs may say otherwise."""
        return 4

    def patches_per_token_in(self, inputs: dict[str, Any]) -> int:
        """The merge size of these inputs, squared.

        Raises:
            PromptError: the slices have different merge sizes.
        """
        sizes = set(inputs["image_merge_sizes"].tolist())
        if len(sizes) != 1:
            raise PromptError(f"the slices of one call must have one merge size, got {sorted(sizes)}")
        return sizes.pop() ** 2

    @property
    def vision_configs(self) -> list[Any]:
        """The encoder loops over segments under eager and SDPA; a packed implementation spares the loop."""
        return [self.scoring_attention.config]

    def hidden_states(self, args: tuple, kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """Per segment of ``cu_seqlens``; one segment is one slice."""
        return packed_segments(args, kwargs)

    def queries_and_keys(
        self, attention: Any, args: tuple, kwargs: dict[str, Any]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Queries and keys after rotary embedding, per segment of ``cu_seqlens`` (one segment is one slice)."""
        hidden = args[0] if args else kwargs["hidden_states"]
        query, key = (
            projection(hidden).unflatten(-1, (attention.num_heads, -1))
            for projection in (attention.q_proj, attention.k_proj)
        )
        query, key = apply_rotary_pos_emb_vision(query, key, *kwargs["position_embeddings"])
        lengths = kwargs["cu_seqlens"].diff().tolist()
        return list(zip(query.transpose(0, 1).split(lengths, 1), key.transpose(0, 1).split(lengths, 1), strict=True))

    def group_patches(self, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Patches already lie group by group."""
        return patches.unflatten(-1, (grid[0] * grid[1], -1))

    def token_grids(self, inputs: dict[str, Any]) -> list[tuple[int, int]]:
        """Patch grid divided by the merge size.

        Raises:
            PromptError: an image holds several frames.
        """
        grids = []
        for (frames, height, width), merge in zip(
            inputs["image_grid_thw"].tolist(), inputs["image_merge_sizes"].tolist(), strict=True
        ):
            if frames != 1:
                raise PromptError(f"each slice must be an image of its own, but one image holds {frames} frames")
            grids.append((height // merge, width // merge))
        return grids

    def slice_inputs(self, inputs: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
        """Rows of the packed patches that belong to the slices."""
        return {**packed_slices(inputs, start, stop), "image_merge_sizes": inputs["image_merge_sizes"][start:stop]}

    def inside_inputs(self, inputs: dict[str, Any], inside: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Whole merge groups; the mean over a group is the same in a row of groups."""
        return packed_inside(inputs, inside, round(self.patches_per_token_in(inputs) ** 0.5))

    def encode(self, images: dict[str, Any]) -> EncodedSlices:
        """Projected tokens, and the merged ones before the projector."""
        output = self.model.model.get_image_features(**images, return_dict=True)
        tokens = list(output.pooler_output)
        merged = output.last_hidden_state.split([len(one) for one in tokens])
        return EncodedSlices(tokens=tokens, deepstack_features=[], encoder_tokens=list(merged))

    def project(self, encoder_tokens: torch.Tensor) -> torch.Tensor:
        """The projector, token by token."""
        return self.model.model.projector(encoder_tokens)

    def encoder_output(self, tokens: list[torch.Tensor], deepstack_features: list[list[torch.Tensor]]) -> ModelOutput:
        """A tuple per slice, as ``get_image_features`` returns them."""
        packed: dict[str, Any] = {"pooler_output": tuple(tokens)}
        return BaseModelOutputWithPooling(**packed)
