# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The results of the released code, reproduced on a stock model."""

from __future__ import annotations

import json

import pytest
import torch
from recorded_vlm import RecordedVLM
from safetensors import safe_open
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from monai_medpruner.pruners import NucleusPruner


def load_oracle(path):
    """Return the stock model with the oracle's weights, its tensors and its settings."""
    with safe_open(path, "pt") as file:
        settings = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    config = json.loads(settings["config"])
    rope = config["text_config"].pop("rope_scaling")
    config["text_config"]["rope_parameters"] = {**rope, "rope_theta": config["text_config"].pop("rope_theta")}
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**config)).eval()
    weights = {
        name.removeprefix("weights."): tensors.pop(name) for name in list(tensors) if name.startswith("weights.")
    }
    assert not model.load_state_dict(weights).missing_keys
    return model, tensors, settings


@pytest.fixture(params=["qwen3vl_dins", "qwen3vl_dins_ragged"])
def oracle(request, shared_oracle):
    return load_oracle(shared_oracle(f"{request.param}.safetensors"))


@pytest.mark.parametrize("vision_batch_size", [None, 1, 3])
def test_released_numbers(oracle, vision_batch_size):
    model, expected, settings = oracle
    pruner = NucleusPruner(
        tau=float(settings["tau"]),
        temperature=float(settings["temperature"]),
        contextual_ratio=float(settings["contextual_ratio"]),
    )
    vlm = RecordedVLM(model, pruner, vision_batch_size)
    ids = expected["input_ids"]
    with torch.no_grad():
        output = vlm(input_ids=ids, pixel_values=expected["pixel_values"], image_grid_thw=expected["image_grid_thw"])
    keep = vlm.record.keep[ids == model.config.image_token_id]
    assert torch.equal(keep, expected["keep"].bool())
    assert vlm.record.keep[ids != model.config.image_token_id].all()
    scores = torch.cat([one.importance for one in vlm.record.slices[0]])
    torch.testing.assert_close(scores, expected["scores"].flatten(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.logits, expected["logits"], atol=1e-4, rtol=0)
