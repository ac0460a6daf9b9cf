# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Qwen3-VL: the geometry of the Qwen-VL generations with DeepStack rows."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen3VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.utils import ModelOutput

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

    @classmethod
    def tiny_config(cls, vocab_size: int, token_ids: dict[str, Any]) -> Qwen3VLConfig:
        """Four vision blocks with two DeepStack layers, three language layers."""
        vision = {
            "depth": 4,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 64,
            "patch_size": 16,
            "out_hidden_size": 64,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        }
        text = {**cls._tiny_text(vocab_size), "head_dim": 16}
        return Qwen3VLConfig(vision_config=vision, text_config=text, **token_ids)

    @classmethod
    def tiny_image_processor(cls) -> Qwen2VLImageProcessorPil:
        """The real preprocessing with the real patch size; slices of more than 256² pixels are shrunk."""
        return Qwen2VLImageProcessorPil(
            patch_size=16,
            merge_size=2,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            size={"shortest_edge": 64 * 64, "longest_edge": 256 * 256},
        )

    def encoder_output(self, tokens: list[torch.Tensor], deepstack_features: list[list[torch.Tensor]]) -> ModelOutput:
        """Tuples with one entry per slice, as ``get_image_features`` returns them."""
        packed: dict[str, Any] = {
            "pooler_output": tuple(tokens),
            "deepstack_features": [tuple(layer) for layer in deepstack_features],
        }
        return BaseModelOutputWithDeepstackFeatures(**packed)
