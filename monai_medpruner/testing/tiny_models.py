# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Shrunk models of the supported families, with their special tokens and image processors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    Gemma3Config,
    InternVLConfig,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen3VLConfig,
    VideoLlama3Config,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from monai_medpruner.errors import UnsupportedModelError

__all__ = ["TINY_MODELS", "TinyModel", "tiny_model"]


def _leave(model: Any) -> None:
    """Most models start with no weight at zero."""


@dataclass(frozen=True)
class TinyModel:
    """How to make a shrunk model of a family, for tests and trials without a download.

    Args:
        model_type: of the configuration.
        tokens: special tokens of its tokenizer, by the name under which its configuration holds their ids.
        image: how its chat template writes an image.
        config: makes its configuration from the size of the vocabulary and the ids of ``tokens``, under the same names.
        image_processor: makes its image processor; one that works without torchvision.
        initialize: gives random values to weights that the stock initialization leaves at zero.
    """

    model_type: str
    tokens: Mapping[str, str]
    image: str
    config: Callable[[int, dict[str, Any]], PreTrainedConfig]
    image_processor: Callable[[], Any]
    initialize: Callable[[Any], None] = _leave


def tiny_model(model: str | TinyModel) -> TinyModel:
    """Return the tiny model of a ``model_type``; one that is given as an object comes back as it is.

    Raises:
        UnsupportedModelError: there is none of that type.
    """
    if isinstance(model, TinyModel):
        return model
    if model not in TINY_MODELS:
        raise UnsupportedModelError(
            f"there is no tiny model of model_type {model!r}; there are: {', '.join(sorted(TINY_MODELS))}. Give a "
            "TinyModel object for another"
        )
    return TINY_MODELS[model]


_MEAN_STD: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}

_QWEN_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def _qwen_text(vocab_size: int) -> dict[str, Any]:
    """Three language layers, heads of 16."""
    return {
        "vocab_size": vocab_size,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 262144,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
    }


def _qwen_processor() -> Qwen2VLImageProcessorPil:
    """The real preprocessing with the real patch size; slices end up with 112² to 280² pixels."""
    return Qwen2VLImageProcessorPil(size={"shortest_edge": 112 * 112, "longest_edge": 280 * 280})


def _qwen2_vl(vocab_size: int, token_ids: dict[str, Any]) -> Qwen2VLConfig:
    """Three vision blocks, three language layers."""
    vision = {"depth": 3, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "hidden_size": 64}
    return Qwen2VLConfig(vision_config=vision, text_config=_qwen_text(vocab_size), **token_ids)


def _qwen2_5_vl(vocab_size: int, token_ids: dict[str, Any]) -> Qwen2_5_VLConfig:
    """Four vision blocks, of which the second and third see the whole slice, windows of 2 x 2 tokens."""
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "window_size": 56,
        "fullatt_block_indexes": [1, 2],
    }
    return Qwen2_5_VLConfig(vision_config=vision, text_config=_qwen_text(vocab_size), **token_ids)


def _qwen3_vl(vocab_size: int, token_ids: dict[str, Any]) -> Qwen3VLConfig:
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
    text = {**_qwen_text(vocab_size), "head_dim": 16}
    return Qwen3VLConfig(vision_config=vision, text_config=text, **token_ids)


def _qwen3_vl_processor() -> Qwen2VLImageProcessorPil:
    """The real preprocessing with the real patch size; slices of more than 256² pixels are shrunk."""
    size = {"shortest_edge": 64 * 64, "longest_edge": 256 * 256}
    return Qwen2VLImageProcessorPil(patch_size=16, merge_size=2, size=size, **_MEAN_STD)


def _gemma3(vocab_size: int, token_ids: dict[str, Any]) -> Gemma3Config:
    """12 by 12 patches in 9 cells of the real size; sliding layers whose window is shorter than a slice."""
    vision = {
        "model_type": "siglip_vision_model",
        "image_size": 168,
        "patch_size": 14,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "vision_use_head": False,
    }
    text = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    }
    return Gemma3Config(vision_config=vision, text_config=text, mm_tokens_per_image=9, **token_ids)


def _gemma3_processor() -> Gemma3ImageProcessorPil:
    """The real preprocessing at the tiny model's image size; no pan-and-scan."""
    return Gemma3ImageProcessorPil(size={"height": 168, "width": 168}, do_pan_and_scan=False, **_MEAN_STD)


def _gemma3_initialize(model: Any) -> None:
    """The projection starts at zero, and every image's tokens with it."""
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.2)


def _internvl(vocab_size: int, token_ids: dict[str, Any]) -> InternVLConfig:
    """8 by 8 patches, norms on queries and keys, three language layers."""
    vision = {
        "image_size": [112, 112],
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "attention_bias": True,
        "use_qk_norm": True,
    }
    text = {
        "model_type": "qwen2",
        "vocab_size": vocab_size,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return InternVLConfig(
        vision_config=vision, text_config=text, image_token_id=token_ids["image_token_id"], image_seq_length=16
    )


def _internvl_processor() -> GotOcr2ImageProcessorPil:
    """The real preprocessing at the tiny model's image size."""
    return GotOcr2ImageProcessorPil(size={"height": 112, "width": 112})


def _video_llama3(vocab_size: int, token_ids: dict[str, Any]) -> VideoLlama3Config:
    """Four vision blocks and three language layers, with the real patch size."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "patch_size": 14,
    }
    text = {
        "model_type": "qwen2",
        "vocab_size": vocab_size,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    }
    return VideoLlama3Config(vision_config=vision, text_config=text, **token_ids)


def _video_llama3_processor() -> VideoLlama3ImageProcessorPil:
    """Hulu-Med's preprocessing of a volume's slices; at least 16 tokens, slices above 256² pixels are shrunk."""
    size = {"shortest_edge": 16 * 28 * 28, "longest_edge": 256 * 256}
    return VideoLlama3ImageProcessorPil(patch_size=14, merge_size=2, size=size, **_MEAN_STD)


#: every tiny model, by ``model_type``
TINY_MODELS: dict[str, TinyModel] = {
    one.model_type: one
    for one in (
        TinyModel("qwen3_vl", _QWEN_TOKENS, _QWEN_IMAGE, _qwen3_vl, _qwen3_vl_processor),
        TinyModel(
            "gemma3",
            {
                "image_token_id": "<image_soft_token>",
                "boi_token_id": "<start_of_image>",
                "eoi_token_id": "<end_of_image>",
            },
            "<start_of_image>",
            _gemma3,
            _gemma3_processor,
            _gemma3_initialize,
        ),
        TinyModel("qwen2_5_vl", _QWEN_TOKENS, _QWEN_IMAGE, _qwen2_5_vl, _qwen_processor),
        TinyModel("qwen2_vl", _QWEN_TOKENS, _QWEN_IMAGE, _qwen2_vl, _qwen_processor),
        TinyModel(
            "internvl",
            {"image_token_id": "<IMG_CONTEXT>", "start_image_token_id": "<img>", "end_image_token_id": "</img>"},
            "<IMG_CONTEXT>\n",
            _internvl,
            _internvl_processor,
        ),
        TinyModel(
            "video_llama_3",
            {"image_token_id": "<image>", "video_token_id": "<|video_pad|>"},
            "<image>\n",
            _video_llama3,
            _video_llama3_processor,
        ),
    )
}
