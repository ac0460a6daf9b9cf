# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Small models and prompts for the network tests."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from transformers import AutoModelForImageTextToText

from monai_medpruner.networks.checkpoint import load_processors
from monai_medpruner.networks.families import FAMILIES, family_class
from monai_medpruner.pruners import TokenPruner
from monai_medpruner.testing import prompt_inputs, randomize_weights, save_tiny_checkpoint

MODEL_TYPES = [name for family in FAMILIES for name in family.model_types]
# height and width of each slice: square, wide, tall, and one size twice
SIZES = [(64, 64), (64, 96), (128, 64), (64, 96)]


@dataclass(frozen=True)
class RandomPruner(TokenPruner):
    """Keeps each token with probability 0.5 (fixed seed), and at least one. Uses no signals."""

    @property
    def signals(self):
        return frozenset()

    def score(self, slices):
        generator = torch.Generator().manual_seed(11)
        # by index in the slice, so that padding and batching do not change a slice's scores
        return torch.rand(slices.valid.shape[1], generator=generator).expand(slices.valid.shape)

    def select(self, score, slices):
        return (score < 0.5) | (torch.arange(score.shape[1]) == 0)


@pytest.fixture(scope="session", params=MODEL_TYPES)
def checkpoint(request, tmp_path_factory):
    """A tiny checkpoint on disk, one per supported model type."""
    return save_tiny_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(params=["sdpa", "eager"])
def model(request, checkpoint):
    """A tiny stock model with weights large enough that every part affects the output."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, attn_implementation=request.param).eval()
    randomize_weights(model)
    return model


@pytest.fixture
def prompts(checkpoint, model):
    """Return a function: sizes of the slices of each volume -> the outputs of the model's processor."""
    image_processor, tokenizer = load_processors(str(checkpoint))
    family = family_class(model.config.model_type)(model)
    return lambda *volumes, seed=0: prompt_inputs(family, image_processor, tokenizer, *volumes, seed=seed)


@pytest.fixture
def batch(prompts):
    """Two volumes of different slices, sizes and lengths, padded on the left."""
    return prompts(SIZES[:3], SIZES[3:])
