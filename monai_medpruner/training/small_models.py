# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Small models with the original architectures: slices of 96 by 96 pixels, in every family the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    Gemma3Config,
    Qwen3VLConfig,
    VideoLlama3Config,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from monai_medpruner.data.phantom import QUESTIONS
from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics import find_protocol
from monai_medpruner.testing import byte_tokenizer, save_parts, tiny_model

__all__ = ["IMAGE_SIZE", "TOKEN_PIXELS", "SmallShape", "save_small_checkpoint"]

#: side length of a slice in pixels; the image processor resizes other slices to it
IMAGE_SIZE = 96
#: side length in pixels of the square covered by one visual token: 2 by 2 patches of 8 pixels. Large models merge
#: patches in the same way, but their patches have 14 or 16 pixels
TOKEN_PIXELS = 16

_PATCH = 8
# 0.7 / sqrt(128); the usual 0.02 is for models ten times as wide, and would leave these with almost no signal
_INITIALIZER_RANGE = 0.06
_VISION_WIDTH = 128
# VideoLLaMA3's encoder has no absolute positions and needs another layer to locate tokens; Qwen3-VL got another layer
# when lesions of 10 mm were introduced; Gemma 3 was trained with three
_VISION_LAYERS = {"qwen3_vl": 4, "gemma3": 3, "video_llama_3": 4}
_VISION_HEADS = 4
_TEXT = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "initializer_range": _INITIALIZER_RANGE,
}
_HEAD = 32
_VOCABULARY = 512
_MEAN_STD: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_PIXELS = {"shortest_edge": IMAGE_SIZE**2, "longest_edge": IMAGE_SIZE**2}


@dataclass(frozen=True)
class SmallShape:
    """What may differ between small models of a family; the defaults are those of ``bundles/medpruner_phantom``.

    Args:
        hidden_size: width of the encoder.
        intermediate_size: width of its feed-forward layers.
        layers: number of its blocks; None for the number of the family.
        text_intermediate_size: width of the feed-forward layers of the language model.
        texts: texts that the tokenizer is trained on; without them, the questions of the phantoms with one lesion.
        vocabulary: number of tokens of the tokenizer without the special ones.
    """

    hidden_size: int = _VISION_WIDTH
    intermediate_size: int = 3 * _VISION_WIDTH
    layers: int | None = None
    text_intermediate_size: int = 384
    texts: Sequence[str] = ()
    vocabulary: int = _VOCABULARY

    def config(self) -> dict[str, Any]:
        """Return what the configurations of all families' encoders share."""
        widths = {"hidden_size": self.hidden_size, "intermediate_size": self.intermediate_size}
        return {**widths, "initializer_range": _INITIALIZER_RANGE, "patch_size": _PATCH}

    def text(self) -> dict[str, Any]:
        """Return what the configurations of all families' language models share."""
        return {**_TEXT, "intermediate_size": self.text_intermediate_size}

    def depth(self, model_type: str) -> int:
        """Return the number of blocks of a family's encoder."""
        return self.layers or _VISION_LAYERS[model_type]


def _qwen3_vl(vocabulary: int, ids: dict[str, Any], shape: SmallShape) -> Qwen3VLConfig:
    """Absolute positions for each patch, DeepStack features from the middle block."""
    vision = {
        **shape.config(),
        "depth": shape.depth("qwen3_vl"),
        "num_heads": _VISION_HEADS,
        "out_hidden_size": _TEXT["hidden_size"],
        "num_position_embeddings": (IMAGE_SIZE // _PATCH) ** 2,
        "deepstack_visual_indexes": [1],
    }
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    text = {**shape.text(), "vocab_size": vocabulary, "head_dim": _HEAD, "rope_parameters": rope}
    return Qwen3VLConfig(vision_config=vision, text_config=text, **ids)


def _gemma3(vocabulary: int, ids: dict[str, Any], shape: SmallShape) -> Gemma3Config:
    """SigLIP with 2 by 2 pooling (4 by 4 in the large model); one sliding-window layer (five of six there)."""
    vision = {
        **shape.config(),
        "model_type": "siglip_vision_model",
        "image_size": IMAGE_SIZE,
        "num_hidden_layers": shape.depth("gemma3"),
        "num_attention_heads": _VISION_HEADS,
        "vision_use_head": False,
    }
    text = {
        **shape.text(),
        "vocab_size": vocabulary,
        "head_dim": _HEAD,
        "query_pre_attn_scalar": _HEAD,
        "sliding_window": 512,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    }
    return Gemma3Config(
        vision_config=vision, text_config=text, mm_tokens_per_image=(IMAGE_SIZE // TOKEN_PIXELS) ** 2, **ids
    )


def _video_llama_3(vocabulary: int, ids: dict[str, Any], shape: SmallShape) -> VideoLlama3Config:
    """Rotary positions in the encoder, 2 by 2 averaging, a Qwen2 language model."""
    vision = {
        **shape.config(),
        "num_hidden_layers": shape.depth("video_llama_3"),
        "num_attention_heads": _VISION_HEADS,
    }
    rope = {"rope_type": "default", "rope_theta": 1e4}
    text = {**shape.text(), "model_type": "qwen2", "vocab_size": vocabulary, "rope_parameters": rope}
    return VideoLlama3Config(vision_config=vision, text_config=text, **ids)


_CONFIGS = {"qwen3_vl": _qwen3_vl, "gemma3": _gemma3, "video_llama_3": _video_llama_3}


def _image_processor(model_type: str) -> Any:
    """Return the image processor of the family; it only rescales the values of slices of 96 by 96 pixels."""
    if model_type == "gemma3":
        size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        return Gemma3ImageProcessorPil(size=size, do_pan_and_scan=False, **_MEAN_STD)
    processor = Qwen2VLImageProcessorPil if model_type == "qwen3_vl" else VideoLlama3ImageProcessorPil
    return processor(patch_size=_PATCH, merge_size=2, size=_PIXELS, **_MEAN_STD)


def _phantom_texts() -> list[str]:
    """Return the questions, choices and answers about phantoms with one lesion."""
    protocol = find_protocol("meduni-vqa")
    texts = ["user\n", "assistant\n"]
    for question, choices in QUESTIONS.values():
        for shift in range(len(choices)):
            listed = dict(zip("ABCD", (*choices[shift:], *choices[:shift]), strict=False))
            texts.append(protocol.prompt(question, listed))
        texts += [protocol.prompt(question), question, *choices]
    return texts


def save_small_checkpoint(model_type: str, folder: str | Path, seed: int = 0, shape: SmallShape | None = None) -> Path:
    """Save an untrained small model in the format of a regular checkpoint.

    Args:
        model_type: "qwen3_vl", "gemma3" or "video_llama_3".
        folder: folder for configuration, safetensors, tokenizer and image processor.
        seed: seed of the initial weights.
        shape: patches and tokenizer; the default is that of ``bundles/medpruner_phantom``.

    Returns:
        The folder.

    Raises:
        SettingsError: no small model is defined for ``model_type``.
    """
    if model_type not in _CONFIGS:
        raise SettingsError(f"no small model of type {model_type!r}; expected one of: {', '.join(_CONFIGS)}")
    tiny = tiny_model(model_type)
    shape = shape or SmallShape()
    # each word of the texts becomes one token
    tokenizer = byte_tokenizer(tiny, shape.texts or _phantom_texts(), shape.vocabulary)
    vocabulary = tokenizer.get_vocab()
    ids = {name: vocabulary[token] for name, token in tiny.tokens.items()}
    # the output layer shares the embedding, as in the smaller models of these families
    config = _CONFIGS[model_type](len(tokenizer), {**ids, "tie_word_embeddings": True}, shape)
    text = config.get_text_config()
    text.tie_word_embeddings = True
    text.pad_token_id, text.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config)
        tiny.initialize(model)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    save_parts(folder, model, tokenizer, _image_processor(model_type))
    return Path(folder)
