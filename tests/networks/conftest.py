# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Small models and prompts for the network tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from monai_medpruner.networks.checkpoint import load_processors
from monai_medpruner.networks.families import FAMILIES, family_class
from monai_medpruner.networks.tiny import save_tiny_checkpoint
from monai_medpruner.pruners import TokenPruner

MODEL_TYPES = [name for family in FAMILIES for name in family.model_types]
# height and width of each slice: square, wide, tall, twice the same
SIZES = [(64, 64), (64, 96), (128, 64), (64, 96)]


@dataclass(frozen=True)
class RandomPruner(TokenPruner):
    """Keeps each token with probability one half, from a fixed seed, and at least one; looks at no attention."""

    needs_attention = False

    def score(self, slices):
        generator = torch.Generator().manual_seed(11)
        # by place in the slice, so that padding and batching do not change a slice's scores
        return torch.rand(slices.valid.shape[1], generator=generator).expand(slices.valid.shape)

    def select(self, score, slices):
        return (score < 0.5) | (torch.arange(score.shape[1]) == 0)


@pytest.fixture(scope="session", params=MODEL_TYPES)
def checkpoint(request, tmp_path_factory):
    """A tiny checkpoint on disk, one per supported model type."""
    return save_tiny_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(params=["sdpa", "eager"])
def model(request, checkpoint):
    """A tiny stock model whose weights are large enough for every part to matter."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, attn_implementation=request.param).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.15, generator=generator)
        embeddings = model.get_input_embeddings().weight
        if model.get_output_embeddings().weight is embeddings:
            # else a model repeats its last token, whatever it sees
            embeddings.div_(3)
    return model


@pytest.fixture
def prompts(checkpoint, model):
    """Return a function: sizes of the slices of each volume -> what the model's processor would return."""
    image_processor, tokenizer = load_processors(str(checkpoint))
    family = family_class(model.config.model_type)(model)

    def build(*volumes, seed=0):
        random = np.random.default_rng(seed)
        images, texts = [], []
        for sizes in volumes:
            volume = [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
            grids = family.token_grids(image_processor(images=volume, return_tensors="pt"))
            written = [
                f"Slice {index}:" + family.image_text(tokenizer, rows * columns)
                for index, (rows, columns) in enumerate(grids)
            ]
            images += volume
            texts.append("".join(written) + " Is there an effusion?")
        text = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
        inputs = {name: text[name] for name in ("input_ids", "attention_mask")}
        for name in family.token_inputs:
            inputs[name] = (text["input_ids"] == family.image_token_id).long()
        pixels = image_processor(images=images, return_tensors="pt")
        # an image processor may tell its processor more than the model takes
        return {**inputs, **{name: pixels[name] for name in family.image_inputs}}

    return build


@pytest.fixture
def batch(prompts):
    """Two volumes of different slices, sizes and lengths, padded on the left."""
    return prompts(SIZES[:3], SIZES[3:])
