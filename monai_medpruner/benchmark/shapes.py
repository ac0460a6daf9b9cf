# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Models of the true dimensions with random weights: time and memory depend on shapes, not on what was learned."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import Checkpoint
from monai_medpruner.networks.checkpoint import default_device, default_dtype, load_config, load_processors
from monai_medpruner.testing import save_tiny_checkpoint
from monai_medpruner.testing.tiny_models import tiny_model

__all__ = ["SHAPES", "ModelShape", "ShapeCheckpoint", "reduced"]

# Qwen3-VL, MedGemma and VideoLLaMA3 all have the dimensions of SigLIP-so400m
_WIDTH = {"hidden_size": 1152, "intermediate_size": 4304}
_HEADS = 16


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of a published model.

    Args:
        name: of the model.
        model_type: of its configuration.
        vision: what its vision encoder's configuration says in place of the tiny model's.
        text: likewise of its language model, without the vocabulary.
        vocabulary: tokens of its tokenizer.
        config: what else its configuration says.
        image_size: what its image processor's ``size`` says.
    """

    name: str
    model_type: str
    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    vocabulary: int
    image_size: Mapping[str, int]
    config: Mapping[str, Any] = field(default_factory=dict)


#: by the name after "shape:"; from the configurations of the models' checkpoints
SHAPES: dict[str, ModelShape] = {
    "qwen3-vl-8b": ModelShape(
        name="Qwen3-VL-8B",
        model_type="qwen3_vl",
        vision={
            **_WIDTH,
            "depth": 27,
            "num_heads": _HEADS,
            "patch_size": 16,
            "out_hidden_size": 4096,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        text={
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
        },
        vocabulary=151936,
        image_size={"shortest_edge": 65536, "longest_edge": 16777216},
    ),
    "medgemma-1.5-4b": ModelShape(
        name="MedGemma 1.5 4B",
        model_type="gemma3",
        vision={
            **_WIDTH,
            "num_hidden_layers": 27,
            "num_attention_heads": _HEADS,
            "image_size": 896,
            "patch_size": 14,
        },
        text={
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 1024,
            "max_position_embeddings": 131072,
        },
        vocabulary=262208,
        image_size={"height": 896, "width": 896},
        config={"mm_tokens_per_image": 256},
    ),
    "hulu-med-7b": ModelShape(
        name="Hulu-Med-7B",
        model_type="video_llama_3",
        vision={**_WIDTH, "num_hidden_layers": 27, "num_attention_heads": _HEADS, "patch_size": 14},
        text={
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
        },
        vocabulary=152064,
        image_size={"shortest_edge": 16 * 28 * 28, "longest_edge": 16384 * 28 * 28},
    ),
}

_LAYERS = ("depth", "num_hidden_layers")


def reduced(shape: ModelShape, depth: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the dimensions of encoder and language model with a share of their layers.

    Args:
        shape: the published dimensions.
        depth: share of the layers, in ``(0, 1]``; of each part the nearest whole number, at least one.

    Raises:
        SettingsError: ``depth`` lies outside its range.
    """
    if not 0 < depth <= 1:
        raise SettingsError(f"depth must lie in (0, 1], got {depth}")
    vision, text = dict(shape.vision), dict(shape.text)
    for part in (vision, text):
        for name in _LAYERS:
            if name in part:
                part[name] = max(1, round(part[name] * depth))
    if "deepstack_visual_indexes" in vision:
        places = [place * vision["depth"] // shape.vision["depth"] for place in vision["deepstack_visual_indexes"]]
        vision["deepstack_visual_indexes"] = sorted(set(places))
    return vision, text


class ShapeCheckpoint(Checkpoint):
    """A model of a published shape with random weights, made on the device at the first use.

    Its tokenizer is the tiny models': each byte of a text is a token, so texts are longer than the real tokenizer's.
    The vocabulary is the true one at full depth, and else that tokenizer's.

    Args:
        shape: dimensions.
        depth: share of the layers of encoder and language model, in ``(0, 1]``.
        device: as in :class:`~monai_medpruner.networks.Checkpoint`.
        dtype: likewise.
        seed: of the weights.

    Raises:
        SettingsError: ``depth`` lies outside its range.
    """

    def __init__(
        self,
        shape: ModelShape,
        depth: float = 1.0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(shape.name, device=device, dtype=dtype)
        self.shape = shape
        self.depth = depth
        self.seed = seed
        self.parts_config = reduced(shape, depth)
        #: configuration at full depth; there once the model is made
        self.published_config: Any = None

    @property
    def model(self) -> Any:
        """The model, made at the first use."""
        with self._lock:
            if self._model is None:
                with tempfile.TemporaryDirectory() as folder:
                    save_tiny_checkpoint(self.shape.model_type, folder)
                    image_processor, tokenizer = load_processors(folder)
                    tiny = load_config(folder)
                image_processor.size = type(image_processor.size)(**self.shape.image_size)
                self._processors = image_processor, tokenizer
                self._digest = f"random weights, seed {self.seed}, depth {self.depth:g}"
                self.published_config = self._config(tiny, reduced(self.shape, 1), self.shape.vocabulary)
                vocabulary = self.shape.vocabulary if self.depth == 1 else len(tokenizer)
                self._model = self._made(self._config(tiny, self.parts_config, vocabulary))
        return self._model

    def _config(self, tiny: Any, parts: tuple[dict[str, Any], dict[str, Any]], vocabulary: int) -> Any:
        vision, text = parts
        values = {**tiny.to_dict(), **self.shape.config}
        text = {**text, "vocab_size": vocabulary}
        values["text_config"].pop("layer_types", None)  # of the tiny model's layers
        values["vision_config"] |= vision
        values["text_config"] |= text
        return type(tiny)(**values)

    def _made(self, config: Any) -> Any:
        device = torch.device(self._loading["device"] or default_device())
        dtype = self._loading["dtype"] or default_dtype(device)
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), device:
            torch.manual_seed(self.seed)
            model: nn.Module = AutoModelForImageTextToText.from_config(config, dtype=dtype)
            tiny_model(self.shape.model_type).initialize(model)
        return model.eval()

    def reductions(self) -> list[str]:
        """Say in words in what the model differs from the published one."""
        said = ["random weights", "a byte-level tokenizer"]
        if self.depth != 1:
            vision, text = self.parts_config
            layers = [next(part[name] for name in _LAYERS if name in part) for part in (vision, text)]
            true = [
                next(part[name] for name in _LAYERS if name in part) for part in (self.shape.vision, self.shape.text)
            ]
            said += [
                f"{layers[0]} of {true[0]} layers in the encoder and {layers[1]} of {true[1]} in the language model",
                "that tokenizer's vocabulary",
            ]
        return [*said, "width and image size as published"]
