# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Shrunk checkpoints with random weights, for trials and tests without a download."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText
from transformers.utils import logging

from monai_medpruner.networks.checkpoint import RANDOM_WEIGHTS
from monai_medpruner.testing.byte_tokenizer import byte_tokenizer
from monai_medpruner.testing.tiny_models import TinyModel, tiny_model

__all__ = ["TINY", "save_parts", "save_tiny_checkpoint"]

#: the model id that stands for a tiny checkpoint
TINY = "tiny"


def save_tiny_checkpoint(model_type: str | TinyModel, folder: str | Path, seed: int = 0) -> Path:
    """Write a tiny checkpoint as a real one is stored: configuration, safetensors, tokenizer, image processor.

    Its weights are random, so its answers mean nothing; ``medpruner_random_weights`` in its configuration says so.

    Args:
        model_type: of one of :data:`~monai_medpruner.testing.TINY_MODELS`, or a tiny model of another family.
        folder: where to write it.
        seed: of the weights.

    Returns:
        The folder.

    Raises:
        UnsupportedModelError: there is no tiny model of that type.
    """
    tiny = tiny_model(model_type)
    tokenizer = byte_tokenizer(tiny)
    vocabulary = tokenizer.get_vocab()
    config: Any = tiny.config(len(tokenizer), {name: vocabulary[token] for name, token in tiny.tokens.items()})
    setattr(config, RANDOM_WEIGHTS, True)
    text = config.get_text_config()
    text.pad_token_id, text.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config)
        tiny.initialize(model)
    # in a distributed run transformers writes on the first rank alone, but here each rank has its own folder
    model.should_save_on_this_rank = lambda _: True
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    save_parts(folder, model, tokenizer, tiny.image_processor())
    return Path(folder)


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Suppress the progress bar of transformers, which says nothing about a file of some kilobytes."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def save_parts(folder: str | Path, model: Any, tokenizer: Any, image_processor: Any) -> None:
    """Write the parts of a checkpoint so that ``transformers.AutoProcessor`` reads them as well.

    Args:
        folder: where to write them.
        model: with its configuration.
        tokenizer: of the model.
        image_processor: of the model.
    """
    with _without_progress_bar():
        for part in (model, tokenizer, image_processor):
            part.save_pretrained(folder)
    tokens = getattr(model.config, "mm_tokens_per_image", None)
    if tokens is not None:  # Gemma 3's processor takes 256 unless it is told the number of tokens
        own = {"processor_class": "Gemma3Processor", "image_seq_length": tokens}
        (Path(folder) / "processor_config.json").write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")
