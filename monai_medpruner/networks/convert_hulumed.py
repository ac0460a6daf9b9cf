# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Convert Hulu-Med checkpoints to native VideoLLaMA3 checkpoints, which need no remote code."""

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
from monai_medpruner.networks.checkpoint_hashes import write_checksums
from monai_medpruner.networks.convert_hulumed_processors import write_processors

__all__ = ["convert_hulumed"]

# the language model of each model type of Hulu-Med
_TEXT_MODELS = {"hulumed_qwen2": "qwen2", "hulumed_qwen3": "qwen3"}

# prefix of a weight's name in Hulu-Med's layout -> prefix in the native layout
_KEY_PREFIXES = {
    "model.vision_encoder.": "model.vision_model.",
    "model.mm_projector.": "model.projector.",
    "model.embed_tokens.": "model.language_model.embed_tokens.",
    "model.layers.": "model.language_model.layers.",
    "model.norm.": "model.language_model.norm.",
    "lm_head.": "lm_head.",
}

# fields of the flat configuration that belong to the language model; these are required, because a wrong default would
# silently change its outputs; the optional ones have the defaults of the language model
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
# Hulu-Med stores only the vision fields that differ from its defaults, which equal the native defaults
_VISION_FIELDS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size")
_OPTIONAL_VISION_FIELDS = ("num_channels", "hidden_act", "layer_norm_eps", "attention_dropout", "initializer_range")

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def convert_hulumed(source: Path, destination: Path) -> None:
    """Write a Hulu-Med checkpoint as a native VideoLLaMA3 checkpoint, which transformers loads without remote code.

    Weights are renamed, not changed. Shards are converted one by one, which needs the memory of the largest shard. The
    destination is created when it is complete; the files of an interrupted conversion are removed.

    The model's own compression of video tokens is left out. The image processor merges 2x2 patches, as Hulu-Med does
    for the slices of a volume.

    Args:
        source: folder with ``config.json``, safetensors (one file, or shards with their index), and the files of the
            image processor and the tokenizer, as published.
        destination: folder to write; it must not exist or must be empty.

    Raises:
        CheckpointError: the source is incomplete or is not a Hulu-Med checkpoint of a known layout.
        OutputFolderError: the destination is not empty.
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
        write_checksums(partial)
        if destination.exists():
            destination.rmdir()
        partial.rename(destination)


def _native_config(source: Path) -> VideoLlama3Config:
    """Convert the flat configuration to the native configuration."""
    fields = read_json(source / "config.json")
    needed = ("model_type", "vision_encoder_config", "mm_projector_type", "image_token_index")
    own = chosen_fields(fields, needed, ("torch_dtype",), "config.json")
    if own["model_type"] not in _TEXT_MODELS:
        raise CheckpointError(
            f"config.json has model_type {own['model_type']!r}, expected one of {', '.join(_TEXT_MODELS)}"
        )
    if own["mm_projector_type"] != "mlp2x_gelu":
        raise CheckpointError(f"only the projector 'mlp2x_gelu' can be converted, got {own['mm_projector_type']!r}")
    if not isinstance(own["vision_encoder_config"], dict):
        raise CheckpointError(
            "vision_encoder_config of config.json must be an object that describes the vision encoder, got "
            f"{type(own['vision_encoder_config']).__name__}"
        )
    text = chosen_fields(fields, _TEXT_FIELDS, _OPTIONAL_TEXT_FIELDS, "config.json")
    vision = chosen_fields(
        own["vision_encoder_config"], _VISION_FIELDS, _OPTIONAL_VISION_FIELDS, "config.json's vision_encoder_config"
    )
    token = own["image_token_index"]
    if not isinstance(token, int) or not 0 <= token < text["vocab_size"]:
        raise CheckpointError(
            f"image_token_index of config.json must be a token of the vocabulary, 0 to {text['vocab_size'] - 1}, "
            f"got {token!r}"
        )
    try:
        return VideoLlama3Config(
            text_config={"model_type": _TEXT_MODELS[own["model_type"]], **text},
            vision_config=vision,
            # Hulu-Med uses the same placeholder for images and frames
            image_token_id=token,
            video_token_id=token,
            tie_word_embeddings=text.get("tie_word_embeddings", False),
            architectures=[VideoLlama3ForConditionalGeneration.__name__],
            dtype=own.get("torch_dtype"),
        )
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"config.json does not describe a model: {error}") from error


def _native_key(key: str) -> str | None:
    """Return the native name of a weight, or None if the name is not part of Hulu-Med's layout."""
    for prefix, native in _KEY_PREFIXES.items():
        if key.startswith(prefix):
            return native + key[len(prefix) :]
    return None


def _shard_keys(source: Path) -> dict[str, set[str]]:
    """Return the names of the safetensors files, and the weights listed for each; none are listed for a single file."""
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
    """Check every weight before anything is written.

    Returns:
        Per shard, the name of each weight and its native name.
    """
    with torch.device("meta"):
        model = VideoLlama3ForConditionalGeneration(config)
    expected = {key: list(weight.shape) for key, weight in model.state_dict().items()}
    result: dict[str, dict[str, str]] = {}
    unknown, misshapen = [], []
    for name, listed in sorted(_shard_keys(source).items()):
        shapes = _shapes(source / name)
        if listed and listed != set(shapes):
            raise CheckpointError(f"{name} and {_INDEX} differ in {_listed(sorted(listed ^ set(shapes)))}")
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
    # a tied head is not stored, only the embedding
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    problems = {"unknown": unknown, "missing": sorted(set(expected) - found - tied), "of another shape": misshapen}
    if any(problems.values()):
        described = [f"{len(keys)} {kind}: {_listed(keys)}" for kind, keys in problems.items() if keys]
        raise CheckpointError(f"the weights do not match the model in config.json; {'; '.join(described)}")
    return result


def _listed(keys: list[str], limit: int = 20) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")


def _shapes(path: Path) -> dict[str, list[int]]:
    """Return the names and shapes of a file's weights. Reads only the header, but detects a truncated file."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} lacks {path.name}; only safetensors can be converted") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}); download it again") from error


def _write_weights(source: Path, destination: Path, shards: dict[str, dict[str, str]]) -> None:
    """Write the weights under their native names, with one shard in memory at a time."""
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
