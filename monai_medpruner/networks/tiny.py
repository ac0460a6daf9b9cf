# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Shrunk checkpoints with random weights, for trials and tests without a download."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText

from monai_medpruner.networks.byte_tokenizer import byte_tokenizer
from monai_medpruner.networks.checkpoint import RANDOM_WEIGHTS
from monai_medpruner.networks.families import family_class

__all__ = ["TINY", "save_tiny_checkpoint"]

#: the model id that stands for a tiny checkpoint
TINY = "tiny"


def save_tiny_checkpoint(model_type: str, folder: str | Path, seed: int = 0) -> Path:
    """Write a tiny checkpoint as a real one is stored: configuration, safetensors, tokenizer, image processor.

    Its weights are random, so its answers mean nothing.

    Args:
        model_type: of a supported family.
        folder: where to write it.
        seed: of the weights.

    Returns:
        The folder.
    """
    family = family_class(model_type)
    tokenizer = byte_tokenizer(family)
    vocabulary = tokenizer.get_vocab()
    ids = {name: vocabulary[token] for name, token in family.tiny_tokens.items()}
    config = family.tiny_config(len(tokenizer), ids)
    setattr(config, RANDOM_WEIGHTS, True)
    text = config.get_text_config()
    text.pad_token_id, text.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config)
        family.tiny_initialize(model)
    # in a distributed run transformers writes on the first rank alone, but here each rank has its own folder
    model.should_save_on_this_rank = lambda _: True
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    for part in (model, tokenizer, family.tiny_image_processor()):
        part.save_pretrained(folder)
    return Path(folder)
