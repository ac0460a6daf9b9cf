# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""InternVL: tiles, the text of an image, and what is not supported."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from recorded_vlm import RecordedVLM
from stock_oracle import masked_logits
from transformers import InternVLProcessor

from monai_medpruner.errors import UnsupportedModelError
from monai_medpruner.networks.checkpoint import load_processors
from monai_medpruner.networks.families import family_of
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.testing import save_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_checkpoint("internvl", tmp_path_factory.mktemp("internvl"))


def stock_image_text(tiles):
    """Return the text of an image in the stock processor, which cannot be built without torchvision."""
    names = SimpleNamespace(
        start_image_token="<img>", end_image_token="</img>", image_token="<IMG_CONTEXT>", image_seq_length=16
    )
    return InternVLProcessor.replace_image_token(names, {"num_patches": [tiles]}, 0)


def test_image_text_is_the_processors(checkpoint, model):
    _, tokenizer = load_processors(str(checkpoint))
    family = family_of(model)
    assert family.image_text(tokenizer, 16) == stock_image_text(1)
    assert family.image_marker(tokenizer) == "<IMG_CONTEXT>"


def test_each_tile_is_pruned_separately(checkpoint, model):
    image_processor, tokenizer = load_processors(str(checkpoint))
    voxels = np.random.default_rng(0).integers(0, 256, (224, 336, 3), dtype=np.uint8)
    pixels = image_processor(images=[Image.fromarray(voxels)], crop_to_patches=True, return_tensors="pt")
    tiles = int(pixels["num_patches"][0])
    assert tiles == 7
    text = tokenizer(stock_image_text(tiles) + " What is it?", return_tensors="pt")
    inputs = {**text, "pixel_values": pixels["pixel_values"]}
    vlm = RecordedVLM(model, NucleusPruner(tau=0.5, temperature=0.5, contextual_ratio=0))
    with torch.no_grad():
        logits = vlm(**inputs).logits[0]
    keep = vlm.record.keep
    assert [one.grid for one in vlm.record.slices[0]] == [(4, 4)] * 7
    assert 0.2 < vlm.record.kept_tokens / (7 * 16) < 0.8
    torch.testing.assert_close(logits, masked_logits(model, inputs, keep)[0][keep[0]], atol=2e-5, rtol=1e-4)


def test_feature_layer_other_than_the_last_is_refused(model):
    model.config.vision_feature_layer = -2
    with pytest.raises(UnsupportedModelError, match="vision_feature_layer is -2"):
        family_of(model)
