# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Write the language model of a VideoLLaMA3 checkpoint as a checkpoint of its own, for engines that know it alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from monai_medpruner.errors import CheckpointError, OutputFolderError
from monai_medpruner.networks.checkpoint import load_config, load_model, load_processors

__all__ = ["export_language_model"]

_MODEL_TYPE = "video_llama_3"


def export_language_model(source: str, destination: str | Path) -> None:
    """Write the language model of a VideoLLaMA3 checkpoint, such as a converted Hulu-Med, with its tokenizer.

    Weights are unchanged. The whole checkpoint is in memory meanwhile. The destination is created when it is complete.

    Args:
        source: folder or Hub id of the checkpoint.
        destination: folder to write; it must not exist or must be empty.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or is of another family.
        OutputFolderError: the destination is not empty.
    """
    target = Path(destination)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputFolderError(f"{target} is not an empty folder; choose another one or empty it")
    config = load_config(source)
    if config.model_type != _MODEL_TYPE:
        raise CheckpointError(
            f"only the language model of {_MODEL_TYPE} is exported, got {config.model_type}: vLLM loads that of other "
            "families from the checkpoint itself"
        )
    model: Any = load_model(source, device="cpu", dtype=config.dtype)
    text = model.config.get_text_config()
    with torch.device("meta"):
        language_model = AutoModelForCausalLM.from_config(text)
    weights = {f"model.{name}": one for name, one in model.model.language_model.state_dict().items()}
    weights |= {f"lm_head.{name}": one for name, one in model.lm_head.state_dict().items()}
    language_model.load_state_dict(weights, assign=True)
    language_model.tie_weights()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        partial = Path(folder) / "checkpoint"
        language_model.save_pretrained(partial)
        load_processors(source)[1].save_pretrained(partial)
        if target.exists():
            target.rmdir()
        partial.rename(target)
