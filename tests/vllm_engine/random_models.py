# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Small checkpoints with random weights for families without a trained phantom model.

Attention on vLLM's CPU backend takes heads of 32, 64 and more; those of ``monai_medpruner.testing``'s tiny models have
16.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoModelForImageTextToText

from monai_medpruner.testing import randomize_weights, save_tiny_checkpoint
from monai_medpruner.testing.tiny_models import TINY_MODELS

__all__ = ["RANDOM_FAMILIES", "save_random_checkpoint"]

RANDOM_FAMILIES = ("qwen2_vl", "qwen2_5_vl")


def save_random_checkpoint(model_type: str, folder: str | Path, seed: int = 5) -> Path:
    """Write a checkpoint whose answers depend on its images: four language heads of 32 on a stock encoder."""
    tiny = TINY_MODELS[model_type]

    def wide(vocabulary: int, ids: dict[str, Any]) -> Any:
        config: Any = tiny.config(vocabulary, ids)
        text = config.text_config
        text.hidden_size, text.intermediate_size = 128, 256
        text.rope_parameters["mrope_section"] = [8, 4, 4]
        width = "hidden_size" if model_type == "qwen2_vl" else "out_hidden_size"
        setattr(config.vision_config, width, text.hidden_size)
        return config

    path = save_tiny_checkpoint(replace(tiny, config=wide), folder)
    model = AutoModelForImageTextToText.from_pretrained(path)
    randomize_weights(model, seed)
    model.save_pretrained(path)
    return path
