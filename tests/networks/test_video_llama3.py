# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Features specific to VideoLLaMA3: merge sizes per image, means before the projector, compression of video tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import stock_oracle
import torch
from conftest import SIZES
from PIL import Image
from recorded_vlm import RecordedVLM
from stock_oracle import masked_greedy, masked_logits

from monai_medpruner.errors import PromptError
from monai_medpruner.networks import PrunedVLM
from monai_medpruner.networks.checkpoint import load_processors
from monai_medpruner.networks.families import VideoLlama3Family
from monai_medpruner.pruners import NucleusPruner

pytestmark = pytest.mark.parametrize("checkpoint", ["video_llama_3"], indirect=True)

TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}
NUCLEUS = NucleusPruner(tau=0.5, temperature=0.5, contextual_ratio=0)
# multiples of 28 above the smallest size, so that no merge size makes the image processor resize
SIZE = (112, 168)


@pytest.fixture
def images(checkpoint):
    """Return a function: merge size -> the image inputs of the same two slices."""
    random = np.random.default_rng(3)
    slices = [Image.fromarray(random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)) for _ in range(2)]
    processor, _ = load_processors(str(checkpoint))
    return lambda merge_size: dict(processor(images=slices, merge_size=merge_size, return_tensors="pt"))


def blocks(raster):
    """Return means over 2x2 blocks of values ``(8 * 12, ...)`` in row-major order."""
    return raster.unflatten(0, (4, 2, 6, 2)).mean((1, 3)).flatten(0, 1)


def prompt(checkpoint, family, inputs):
    """Return the inputs of a prompt with the slices one after the other."""
    _, tokenizer = load_processors(str(checkpoint))
    texts = [family.image_text(tokenizer, rows * columns) for rows, columns in family.token_grids(inputs)]
    return {**tokenizer("".join(texts) + "Is it?", return_tensors="pt"), **inputs}


def test_encoder_tokens_are_block_means(model, images):
    family = VideoLlama3Family(model)
    with torch.no_grad():
        patches = family.encode(images(1)).encoder_tokens
        tokens = family.encode(images(2)).encoder_tokens
    for raster, merged in zip(patches, tokens, strict=True):
        assert merged.shape == (24, 32)
        torch.testing.assert_close(merged, blocks(raster), **TOLERANCE)


def test_importance_is_that_of_the_block(model, images):
    """Patches in merge groups and in row-major order give the same importance."""
    vlm = RecordedVLM(model, NUCLEUS)
    raster, merged = (vlm.encode(**images(merge_size)).records for merge_size in (1, 2))
    for one, other in zip(raster, merged, strict=True):
        assert (one.grid, other.grid) == ((8, 12), (4, 6))
        torch.testing.assert_close(other.importance, blocks(one.importance), **TOLERANCE)


def test_unmerged_slices_equal_masked_stock_model(model, checkpoint, images):
    vlm = RecordedVLM(model, NUCLEUS)
    inputs = prompt(checkpoint, vlm.family, images(1))
    with torch.no_grad():
        logits = vlm(**inputs).logits[0]
    keep = vlm.record.keep
    assert 0.2 < keep.float().mean() < 0.8
    torch.testing.assert_close(logits, masked_logits(model, inputs, keep)[0, keep[0]], **TOLERANCE)


@pytest.mark.parametrize("merge_size", [1, 2])
def test_pruners_get_the_merge_size(model, images, merge_size):
    told = []

    @dataclass(frozen=True)
    class Spy(NucleusPruner):
        def select(self, score, slices):
            told.append(slices.patches_per_token)
            return super().select(score, slices)

    PrunedVLM(model, Spy(), vision_batch_size=1).encode(**images(merge_size))
    assert told == [merge_size**2] * 2


def test_given_positions_are_pruned(model, prompts, monkeypatch):
    """Positions of the full prompt are kept instead of being renumbered."""
    inputs = prompts(SIZES[:2])
    positions = torch.arange(inputs["input_ids"].shape[1])[None]
    monkeypatch.setitem(stock_oracle.POSITIONS, "video_llama_3", lambda *_: positions)
    vlm = RecordedVLM(model, NUCLEUS)
    with torch.no_grad():
        renumbered = vlm(**inputs).logits
        logits = vlm(**inputs, position_ids=positions).logits
    keep = vlm.record.keep
    torch.testing.assert_close(logits[0], masked_logits(model, inputs, keep)[0, keep[0]], **TOLERANCE)
    assert not torch.allclose(logits, renumbered, atol=1e-3)
    output = vlm.generate(**inputs, position_ids=positions, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    assert torch.equal(output[:, -8:], masked_greedy(model, inputs, keep, 8))


def test_images_have_no_compression_mask(images):
    assert set(images(2)) == set(VideoLlama3Family.image_inputs)


@pytest.mark.parametrize("pruner", [None, NUCLEUS], ids=["no pruner", "nucleus"])
@pytest.mark.parametrize("route", ["video_compression_mask", "pixel_values_videos"])
def test_token_compression_of_the_model_is_refused(model, checkpoint, images, pruner, route):
    """The model compresses only videos: the wrapper refuses them and their mask."""
    vlm = RecordedVLM(model, pruner)
    inputs = prompt(checkpoint, vlm.family, images(2))
    for run in (vlm, vlm.generate):
        with pytest.raises(PromptError, match=route):
            run(**inputs, **{route: torch.ones(24, dtype=torch.bool)})


def test_slices_of_different_merge_sizes(model, checkpoint, images):
    mixed = images(2)
    mixed["image_merge_sizes"] = torch.tensor([2, 1])
    with pytest.raises(PromptError, match="one merge size"):
        PrunedVLM(model, NUCLEUS).encode(**mixed)


def test_frames_are_not_slices(model, images):
    frames = images(2)
    frames["image_grid_thw"] = torch.tensor([[2, 8, 12]])
    frames["image_merge_sizes"] = torch.tensor([2])
    with pytest.raises(PromptError, match="holds 2 frames"):
        PrunedVLM(model, NUCLEUS).encode(**frames)
