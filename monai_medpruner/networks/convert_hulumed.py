# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Hulu-Med checkpoints to native VideoLLaMA3 ones, so that no code of the checkpoint is ever run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import VideoLlama3Config, VideoLlama3ForConditionalGeneration

from monai_medpruner.errors import CheckpointError, OutputFolderError
from monai_medpruner.networks.checkpoint_files import chosen_fields, read_json
from monai_medpruner.networks.convert_hulumed_processors import write_processors

__all__ = ["convert_hulumed"]

# the language model of each of Hulu-Med's own model types
_TEXT_MODELS = {"hulumed_qwen2": "qwen2", "hulumed_qwen3": "qwen3"}

# how a key begins in Hulu-Med's layout, and in the native one
_KEY_PREFIXES = {
    "model.vision_encoder.": "model.vision_model.",
    "model.mm_projector.": "model.projector.",
    "model.embed_tokens.": "model.language_model.embed_tokens.",
    "model.layers.": "model.language_model.layers.",
    "model.norm.": "model.language_model.norm.",
    "lm_head.": "lm_head.",
}

# fields of the flat configuration that belong to the language model: those that must be there (a wrong default would
# change its numbers unnoticed), and those whose default is that of the language model
_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
)
_OPTIONAL_TEXT_FIELDS = (
    "rope_scaling",
    "tie_word_embeddings",
    "head_dim",
    "attention_bias",
    "attention_dropout",
    "use_sliding_window",
    "sliding_window",
    "max_window_layers",
    "initializer_range",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
# Hulu-Med stores of its vision encoder only what differs from defaults, which the native ones equal
_VISION_FIELDS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size")
_OPTIONAL_VISION_FIELDS = ("num_channels", "hidden_act", "layer_norm_eps", "attention_dropout", "initializer_range")

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def convert_hulumed(source: Path, destination: Path) -> None:
    """Write a Hulu-Med checkpoint as a native VideoLLaMA3 checkpoint, which transformers loads without remote code.

    Weights are renamed and not changed, shard by shard: the memory needed is that of the largest shard. The
    destination appears when everything is in it; what an interrupted conversion has written is removed.

    The model's own reduction of video tokens is not carried along. The image processor is set to how Hulu-Med reads
    the slices of a volume, with 2x2 merging.

    Args:
        source: folder with ``config.json``, safetensors (one file, or shards with their index), the image processor's
            and the tokenizer's files, as published.
        destination: folder to write; absent or empty.

    Raises:
        CheckpointError: the source is incomplete or is not a Hulu-Med checkpoint of a known layout.
        OutputFolderError: the destination holds something.
    """
    source, destination = Path(source), Path(destination)
    if not source.is_dir():
        raise CheckpointError(f"there is no folder {source}; download the checkpoint first, with 'hf download'")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise OutputFolderError(f"{destination} is not an empty folder; choose another one or empty it")
    config = _native_config(source)
    vision: Any = config.vision_config
    shards = _checked_shards(source, config)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as folder:
        partial = Path(folder) / "checkpoint"
        partial.mkdir()
        config.save_pretrained(partial)
        write_processors(source, partial, config.image_token_id, vision.patch_size)
        _write_weights(source, partial, shards)
        if destination.exists():
            destination.rmdir()
        partial.rename(destination)


def _native_config(source: Path) -> VideoLlama3Config:
    """Turn the flat configuration into the native one."""
    fields = read_json(source / "config.json")
    needed = ("model_type", "vision_encoder_config", "mm_projector_type", "image_token_index")
    own = chosen_fields(fields, needed, ("torch_dtype",), "config.json")
    if own["model_type"] not in _TEXT_MODELS:
        raise CheckpointError(
            f"config.json has model_type {own['model_type']!r}, expected one of {', '.join(_TEXT_MODELS)}"
        )
    if own["mm_projector_type"] != "mlp2x_gelu":
        raise CheckpointError(f"only the projector 'mlp2x_gelu' can be converted, not {own['mm_projector_type']!r}")
    if not isinstance(own["vision_encoder_config"], dict):
        raise CheckpointError("config.json holds no description of the vision encoder in vision_encoder_config")
    text = chosen_fields(fields, _TEXT_FIELDS, _OPTIONAL_TEXT_FIELDS, "config.json")
    vision = chosen_fields(
        own["vision_encoder_config"], _VISION_FIELDS, _OPTIONAL_VISION_FIELDS, "config.json's vision_encoder_config"
    )
    token = own["image_token_index"]
    if not isinstance(token, int) or not 0 <= token < text["vocab_size"]:
        raise CheckpointError(f"config.json's image_token_index is {token!r}, which is no token of the vocabulary")
    try:
        return VideoLlama3Config(
            text_config={"model_type": _TEXT_MODELS[own["model_type"]], **text},
            vision_config=vision,
            # Hulu-Med writes images and frames with one placeholder
            image_token_id=token,
            video_token_id=token,
            tie_word_embeddings=text.get("tie_word_embeddings", False),
            architectures=[VideoLlama3ForConditionalGeneration.__name__],
            dtype=own.get("torch_dtype"),
        )
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"config.json does not describe a model: {error}") from error


def _native_key(key: str) -> str | None:
    """The native name of a weight, None where Hulu-Med's layout has no such name."""
    for prefix, native in _KEY_PREFIXES.items():
        if key.startswith(prefix):
            return native + key[len(prefix) :]
    return None


def _shard_keys(source: Path) -> dict[str, set[str]]:
    """The names of the safetensors files, and the weights that each has to hold; none told for a single file."""
    if not (source / _INDEX).exists():
        return {_SINGLE: set()}
    weight_map = chosen_fields(read_json(source / _INDEX), ("weight_map",), (), _INDEX)["weight_map"]
    shards: dict[str, set[str]] = {}
    for key, name in weight_map.items():
        if Path(name).name != name:
            raise CheckpointError(f"{_INDEX} names a file outside the checkpoint: {name!r}")
        shards.setdefault(name, set()).add(key)
    return shards


def _checked_shards(source: Path, config: VideoLlama3Config) -> dict[str, dict[str, str]]:
    """Account for every weight before anything is written; per shard, its weights' names and native names."""
    with torch.device("meta"):
        model = VideoLlama3ForConditionalGeneration(config)
    expected = {key: list(weight.shape) for key, weight in model.state_dict().items()}
    result: dict[str, dict[str, str]] = {}
    unknown, misshapen = [], []
    for name, told in sorted(_shard_keys(source).items()):
        shapes = _shapes(source / name)
        if told and told != set(shapes):
            raise CheckpointError(f"{name} and {_INDEX} differ in {_listed(sorted(told ^ set(shapes)))}")
        result[name] = {}
        for key, shape in shapes.items():
            native = _native_key(key)
            if native is None or native not in expected:
                unknown.append(key)
                continue
            if shape != expected[native]:
                misshapen.append(f"{key} {shape} instead of {expected[native]}")
            result[name][key] = native
    found = {native for names in result.values() for native in names.values()}
    # a tied head is stored as the embedding alone
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    problems = {"unknown": unknown, "missing": sorted(set(expected) - found - tied), "of another shape": misshapen}
    if any(problems.values()):
        described = [f"{len(keys)} {kind}: {_listed(keys)}" for kind, keys in problems.items() if keys]
        raise CheckpointError(f"the weights are not those of the model in config.json; {'; '.join(described)}")
    return result


def _listed(keys: list[str], limit: int = 20) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")


def _shapes(path: Path) -> dict[str, list[int]]:
    """Names and shapes of a file's weights; reads its header alone, but notices that the file is too short."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} lacks {path.name}; only safetensors can be converted") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}); download it again") from error


def _write_weights(source: Path, destination: Path, shards: dict[str, dict[str, str]]) -> None:
    """Rename the weights, one shard in memory at a time."""
    weight_map: dict[str, str] = {}
    size = 0
    for name, names in tqdm(shards.items(), desc="Converting", unit="shard"):
        with safe_open(source / name, "pt") as file:
            weights = {native: file.get_tensor(key) for key, native in names.items()}
        save_file(weights, destination / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(weights, name))
        size += sum(weight.nbytes for weight in weights.values())
        del weights
    if list(shards) != [_SINGLE]:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        (destination / _INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
