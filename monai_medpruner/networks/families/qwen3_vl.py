# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Qwen3-VL: the geometry of the Qwen-VL generations with DeepStack rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.utils import ModelOutput
from transformers.vision_utils import get_vision_interpolation_indices_and_weights

from monai_medpruner.networks.families.base import FamilySummary
from monai_medpruner.networks.families.qwen_geometry import QwenGeometry

__all__ = ["Qwen3VLFamily"]


class Qwen3VLFamily(QwenGeometry):
    """Qwen3-VL (``Qwen3VLForConditionalGeneration``): every token has rows for the first language layers too."""

    model_types = ("qwen3_vl",)
    summary = FamilySummary(
        serves="Qwen3-VL",
        merge="2×2 merge group",
        positions="original, M-RoPE",
        scored_layer="last",
        deepstack_features="DeepStack features",
    )

    def inside_inputs(self, inputs: dict[str, Any], inside: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Whole merge groups, with the learned positions that were interpolated for the whole grid."""
        vision = self._vision
        indices, weights = get_vision_interpolation_indices_and_weights(
            inputs["image_grid_thw"].cpu(),
            num_grid_per_side=vision.num_grid_per_side,
            mode=vision.interpolation_mode,
            align_corners=vision.interpolation_align_corners,
            spatial_merge_size=vision.spatial_merge_size,
        )
        places = torch.cat(list(inside)).repeat_interleave(self.patches_per_token).nonzero().flatten()
        device = inputs["pixel_values"].device
        return {
            **super().inside_inputs(inputs, inside),
            "image_interp_indices": indices[places].to(device),
            "image_interp_weights": weights[places].to(device),
        }

    def encoder_output(self, tokens: list[torch.Tensor], deepstack_features: list[list[torch.Tensor]]) -> ModelOutput:
        """Tuples with one entry per slice, as ``get_image_features`` returns them."""
        packed: dict[str, Any] = {
            "pooler_output": tuple(tokens),
            "deepstack_features": [tuple(layer) for layer in deepstack_features],
        }
        return BaseModelOutputWithDeepstackFeatures(**packed)
