# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints with real tokenizers and tiny random weights, and what their stock processors make of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer, Gemma3Processor, Qwen3VLProcessor

from monai_medpruner.testing import tiny_model
from monai_medpruner.testing.tiny_checkpoint import save_parts

#: Google's instruction, as the bundle has it
INSTRUCTION = (
    "You are an instructor teaching medical students. You are analyzing a contiguous block of CT slices. Please review "
    "the slices provided below carefully."
)


def save_real_checkpoint(model_type: str, tokenizer_folder: Path, folder: Path) -> Path:
    """Write a checkpoint of a tiny model whose vocabulary is that of a real tokenizer."""
    tiny, tokenizer = tiny_model(model_type), AutoTokenizer.from_pretrained(tokenizer_folder)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in tiny.tokens.items()}
    config: Any = tiny.config(len(tokenizer), ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config)
        tiny.initialize(model)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = tokenizer.eos_token_id, 0
    save_parts(folder, model, tokenizer, tiny.image_processor())
    return folder


class ImagesOnly(Qwen3VLProcessor):
    """The stock processor without a video processor, for which torchvision is needed."""

    def check_argument_for_proper_class(self, argument_name, argument):
        if argument_name != "video_processor":
            super().check_argument_for_proper_class(argument_name, argument)


def stock_ids(model_type: str, image_processor: Any, tokenizer: Any, messages: list[dict[str, Any]]) -> torch.Tensor:
    """Return the ids of a conversation ``(L,)`` by the stock processor's chat template, images included."""
    if model_type == "gemma3":
        processor: Any = Gemma3Processor(
            image_processor, tokenizer, chat_template=tokenizer.chat_template, image_seq_length=9
        )
    else:
        processor = ImagesOnly(image_processor, tokenizer, None, chat_template=tokenizer.chat_template)
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    return inputs["input_ids"][0]


def images(count: int) -> list[Image.Image]:
    """Slices of 64 by 96 pixels."""
    generator = np.random.default_rng(count)
    return [Image.fromarray(generator.integers(0, 256, (64, 96, 3), dtype=np.uint8)) for _ in range(count)]


def recipe(model_type: str, preset: str, slices: Sequence[Image.Image], numbers: Sequence[int], question: str) -> list:
    """Return the user's content as the makers and the released evaluation write it, part by part.

    Args:
        model_type: "qwen3_vl" or "gemma3".
        preset: "paper", "released" or "makers".
        slices: images.
        numbers: numbers of the slices in the volume, from 1.
        question: plain text.
    """
    content: list[dict[str, Any]] = []

    def text(written: str) -> None:
        content.append({"type": "text", "text": written})

    if model_type == "gemma3" and preset != "released":
        text(INSTRUCTION)
    for place, (image, number) in enumerate(zip(slices, numbers, strict=True), start=1):
        if model_type == "gemma3" and preset == "released":
            text(f"SLICE {place}: ")
        if model_type == "qwen3_vl" and preset == "paper":
            text(f"Slice {number}:")
        content.append({"type": "image", "image": image})
        if model_type == "gemma3" and preset != "released":
            text(f"SLICE {number if preset == 'paper' else place}")
    text(f"\n\n{question}" if model_type == "gemma3" and preset != "released" else question)
    return content
