# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Shapes of published models: parameters as published, depth reduced alike, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForImageTextToText

from monai_medpruner.benchmark.models import benchmark_model, model_names
from monai_medpruner.benchmark.shapes import SHAPES, ShapeCheckpoint, reduced
from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import TransformersEncoder
from monai_medpruner.networks.checkpoint import load_config
from monai_medpruner.testing import save_tiny_checkpoint

#: parameters of the published checkpoints, in billions
PUBLISHED = {"qwen3-vl-8b": 8.77, "medgemma-1.5-4b": 4.30, "hulu-med-7b": 8.04}


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_published_model(name, tmp_path):
    checkpoint = ShapeCheckpoint(SHAPES[name])
    parts = reduced(SHAPES[name], 1)
    save_tiny_checkpoint(SHAPES[name].model_type, tmp_path)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(
            checkpoint._config(load_config(str(tmp_path)), parts, SHAPES[name].vocabulary)
        )
    assert sum(one.numel() for one in model.parameters()) / 1e9 == pytest.approx(PUBLISHED[name], rel=0.01)


def test_depth_is_reduced_alike():
    vision, text = reduced(SHAPES["qwen3-vl-8b"], 1 / 9)
    assert (vision["depth"], text["num_hidden_layers"]) == (3, 4)
    assert vision["deepstack_visual_indexes"] == [0, 1, 2]
    vision, text = reduced(SHAPES["hulu-med-7b"], 1 / 27)
    assert (vision["num_hidden_layers"], text["num_hidden_layers"]) == (1, 1)
    assert vision["hidden_size"] == 1152
    assert text["hidden_size"] == 3584
    assert reduced(SHAPES["medgemma-1.5-4b"], 1)[1]["num_hidden_layers"] == 34


@pytest.mark.parametrize("depth", [0, -1, 1.5])
def test_depth_outside_its_range(depth):
    with pytest.raises(SettingsError, match="depth"):
        ShapeCheckpoint(SHAPES["hulu-med-7b"], depth)


@pytest.mark.parametrize("name", SHAPES)
def test_a_narrow_shape_encodes(name):
    """Every shape's configuration makes a model that runs; narrow, for the time of the test."""
    shape = SHAPES[name]
    narrow = {"hidden_size": 64, "intermediate_size": 64}
    text = {"qwen3_vl": {**narrow, "num_attention_heads": 1, "num_key_value_heads": 1}}.get(shape.model_type, {})
    vision = (
        {**shape.vision, **narrow, "out_hidden_size": 64} if "depth" in shape.vision else {**shape.vision, **narrow}
    )
    shape = replace(shape, vision=vision, text={**shape.text, **narrow, **text})
    checkpoint = ShapeCheckpoint(shape, 1 / 27, device="cpu")
    study = TransformersEncoder(checkpoint).encode(torch.rand(1, 64, 64, 2))
    tokens = {"qwen3_vl": 64, "gemma3": 256, "video_llama_3": 16}[shape.model_type]
    assert [len(one) for one in study.tokens] == [tokens, tokens]
    assert checkpoint.describe()["digest"].startswith("random weights")
    said = ", ".join(checkpoint.reductions())
    assert "1 of 27 layers in the encoder" in said
    assert checkpoint.published_config.get_text_config().num_hidden_layers == shape.text["num_hidden_layers"]
    assert checkpoint.model.config.get_text_config().num_hidden_layers == 1
    assert all(one.isfinite().all() for one in study.tokens)


def test_models_by_name():
    assert {"tiny", "phantom:qwen3_vl", "shape:qwen3-vl-8b"} <= set(model_names())
    assert benchmark_model("phantom:gemma3").checkpoint.name == "phantom:gemma3"
    with pytest.raises(SettingsError, match="shape:qwen3-vl-8b"):
        benchmark_model("shape:unknown")
    with pytest.raises(SettingsError, match="depth"):
        benchmark_model("tiny", 0.5)
