# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What the Qwen-VL generations share: merge groups, packed slices, M-RoPE positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision
from transformers.utils import ModelOutput

from monai_medpruner.networks.families.base import (
    EncodedSlices,
    ModelFamily,
)
from monai_medpruner.networks.families.patch_layout import packed_inside, packed_segments, packed_slices

__all__ = ["QwenGeometry"]


class QwenGeometry(ModelFamily):
    """Base of the families whose slices are packed Qwen-VL patches; no family by itself.

    The processor writes a slice's patches merge group by merge group, so the ``merge ** 2`` patches of a token follow
    one another. Kept tokens keep their original two-dimensional positions.
    """

    image_inputs = ("pixel_values", "image_grid_thw")
    token_inputs: ClassVar[dict[str, int]] = {"mm_token_type_ids": 0}
    preserves_position_ids = True

    @property
    def _vision(self) -> Any:
        return self.model.model.visual

    def image_size_for(self, image_processor: Any, tokens: int) -> dict[str, Any]:
        """At most that many merge groups' pixels; the processor's lower limit where it is lower still."""
        area = (image_processor.patch_size * image_processor.merge_size) ** 2
        most = max(tokens, 1) * area
        return {"size": {"shortest_edge": min(image_processor.size["shortest_edge"], most), "longest_edge": most}}

    @property
    def attention_blocks(self) -> Sequence[Any]:
        """The attention of each block."""
        return [block.attn for block in self._vision.blocks]

    @property
    def patches_per_token(self) -> int:
        """The merge group's area."""
        return self._vision.spatial_merge_size**2

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
        query, key, _ = attention.qkv(hidden).unflatten(-1, (3, attention.num_heads, -1)).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *kwargs["position_embeddings"])
        lengths = kwargs["cu_seqlens"].diff().tolist()
        return list(zip(query.transpose(0, 1).split(lengths, 1), key.transpose(0, 1).split(lengths, 1), strict=True))

    def group_patches(self, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Patches already lie group by group."""
        return patches.unflatten(-1, (-1, self.patches_per_token))

    def token_grids(self, inputs: dict[str, Any]) -> list[tuple[int, int]]:
        """Patch grid divided by the merge size."""
        merge = self._vision.spatial_merge_size
        return [(height // merge, width // merge) for _, height, width in inputs["image_grid_thw"].tolist()]

    def slice_inputs(self, inputs: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
        """Rows of the packed patches that belong to the slices."""
        return packed_slices(inputs, start, stop)

    def inside_inputs(self, inputs: dict[str, Any], inside: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Whole merge groups."""
        return packed_inside(inputs, inside, self._vision.spatial_merge_size)

    def encode(self, images: dict[str, Any]) -> EncodedSlices:
        """Tokens, and the merge groups before the merger."""
        output = self.model.model.get_image_features(**images, return_dict=True)
        tokens = list(output.pooler_output)
        groups = output.last_hidden_state.reshape(-1, self.patches_per_token * output.last_hidden_state.shape[-1])
        return EncodedSlices(
            tokens=tokens,
            deepstack_features=[list(layer) for layer in getattr(output, "deepstack_features", None) or []],
            encoder_tokens=list(groups.split([len(one) for one in tokens])),
        )

    def project(self, encoder_tokens: torch.Tensor) -> torch.Tensor:
        """The patch merger on whole groups."""
        merger = self._vision.merger
        return merger(encoder_tokens.reshape(-1, encoder_tokens.shape[-1] // self.patches_per_token))

    def encoder_output(self, tokens: list[torch.Tensor], deepstack_features: list[list[torch.Tensor]]) -> ModelOutput:
        """A tuple with one entry per slice, as ``get_image_features`` returns it."""
        packed: dict[str, Any] = {"pooler_output": tuple(tokens)}
        return BaseModelOutputWithPooling(**packed)

    def positions(
        self,
        inputs: dict[str, Any],
        grids: list[tuple[int, int]],
        order: torch.Tensor,
        attention_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Row 0 counts the pruned prompt without gaps; rows 1 to 3 are the original M-RoPE positions."""
        ids = inputs["input_ids"]
        merge = self._vision.spatial_merge_size
        mrope, _ = self.model.model.get_rope_index(
            ids,
            mm_token_type_ids=(ids == self.image_token_id).int(),
            image_grid_thw=torch.tensor([(1, rows * merge, columns * merge) for rows, columns in grids]),
            attention_mask=inputs["attention_mask"],
        )
        text = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        return torch.cat([text[None], mrope.gather(2, order[None].expand(3, -1, -1)) * attention_mask])
