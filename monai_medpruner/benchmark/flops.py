# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Floating-point operations of encoder, scoring and language model, counted from the configuration.

A multiplication and an addition are two operations. Matrix products and convolutions count, elementwise work does not.
Attention counts as a full matrix, as kernels with a mask compute it.
"""

from __future__ import annotations

from typing import Any

from monai_medpruner.errors import UnsupportedModelError

__all__ = ["decode_flops", "encoder_flops", "prefill_flops", "scoring_flops"]

# their stock forward knows no logits_to_keep: the scores of every token of the prompt are computed
_SCORES_EVERY_TOKEN = ("video_llama_3",)
_KNOWN = ("gemma3", "qwen3_vl", "video_llama_3")


def _transformer(tokens: int, width: int, inner: int, depth: int) -> int:
    """Blocks with as many keys as queries and a plain two-layer perceptron."""
    block = tokens * (8 * width**2 + 4 * width * inner) + 4 * tokens**2 * width
    return depth * block


def encoder_flops(config: Any, patches: int) -> int:
    """Return the operations of vision encoder and projector for one slice.

    Args:
        config: of the model.
        patches: of the slice.

    Raises:
        UnsupportedModelError: the operations of this model type are not known here.
    """
    if config.model_type not in _KNOWN:
        raise UnsupportedModelError(
            f"the operations of {config.model_type!r} are not known; known are {', '.join(_KNOWN)}"
        )
    vision, out = config.vision_config, config.get_text_config().hidden_size
    width, inner = vision.hidden_size, vision.intermediate_size
    if config.model_type == "qwen3_vl":
        pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        cell = vision.spatial_merge_size**2
        merger = 2 * (patches // cell) * cell * width * (cell * width + vision.out_hidden_size)
        projector = (1 + len(vision.deepstack_visual_indexes)) * merger
        depth = vision.depth
    else:
        pixels, depth = vision.num_channels * vision.patch_size**2, vision.num_hidden_layers
        if config.model_type == "gemma3":
            projector = 2 * config.mm_tokens_per_image * width * out
        else:
            # the image processor of Hulu-Med's volumes merges 2 x 2 patches
            projector = 2 * (patches // 4) * out * (width + out)
    return 2 * patches * pixels * width + _transformer(patches, width, inner, depth) + projector


def scoring_flops(config: Any, patches: int) -> int:
    """Return the operations of scoring one slice by received attention: queries, keys and their product in one block.

    Args:
        config: of the model.
        patches: of the slice.
    """
    width = config.vision_config.hidden_size
    return 4 * patches * width**2 + 2 * patches**2 * width


def prefill_flops(config: Any, tokens: int, past: int = 0) -> int:
    """Return the operations of the language model for some tokens and the scores of the next one.

    Args:
        config: of the model.
        tokens: that run.
        past: tokens whose keys and values are there.
    """
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    weights = text.hidden_size * (2 * queries + 2 * keys + 3 * text.intermediate_size)
    window = getattr(text, "sliding_window", None) or 0
    attended = 0
    for kind in getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers:
        # a sliding layer holds the keys of its window; those of one prompt all count, masked or not
        held = min(past, window - 1) if kind == "sliding_attention" else past
        attended += tokens + held
    scored = tokens if config.model_type in _SCORES_EVERY_TOKEN else 1
    return (
        2 * tokens * weights * text.num_hidden_layers
        + 4 * tokens * attended * queries
        + 2 * scored * text.hidden_size * text.vocab_size
    )


def decode_flops(config: Any, prompt: int, new_tokens: int) -> int:
    """Return the operations of the tokens after the first one.

    Args:
        config: of the model.
        prompt: tokens of the prompt.
        new_tokens: of the answer.
    """
    return sum(prefill_flops(config, 1, prompt + number) for number in range(new_tokens - 1))
