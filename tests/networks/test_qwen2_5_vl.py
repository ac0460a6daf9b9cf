# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Qwen2.5-VL: windows of unequal length, and the scores of whole slices."""

from __future__ import annotations

import pytest
import torch
from conftest import SIZES

from monai_medpruner.errors import UnsupportedModelError
from monai_medpruner.networks.block_signals import capture_inputs
from monai_medpruner.networks.families import family_of
from monai_medpruner.networks.packed_attention import packed_attention
from monai_medpruner.testing import save_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_checkpoint("qwen2_5_vl", tmp_path_factory.mktemp("qwen2_5_vl"))


@pytest.fixture
def family(model):
    return family_of(model)


@pytest.fixture
def images(family, prompts):
    inputs = prompts(SIZES)
    return family.slice_inputs(inputs, 0, len(SIZES))


def segments(family, images, attention):
    """Return the lengths of the segments that an attention module of the encoder receives."""
    captured = []
    with torch.no_grad(), capture_inputs(attention, captured):
        family.encode(images)
    return captured[0][1]["cu_seqlens"].diff().tolist()


def test_packed_windows_equal_the_loop(family, images):
    windows = segments(family, images, family.model.model.visual.blocks[0].attn)
    assert len(windows) > len(SIZES)
    assert len(set(windows)) > 1
    with torch.no_grad():
        looped = family.encode(images)
        with packed_attention(family.vision_configs):
            packed = family.encode(images)
    for one, other in zip(packed.tokens, looped.tokens, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_scored_block_attends_to_whole_slices(family, images):
    blocks = family.model.model.visual.blocks
    assert family.scoring_attention is blocks[2].attn
    assert segments(family, images, family.scoring_attention) == [4 * r * c for r, c in family.token_grids(images)]
    assert max(segments(family, images, blocks[3].attn)) == 16


def test_tokens_before_the_projector_are_in_the_order_of_the_prompt(family, images):
    with torch.no_grad():
        encoded = family.encode(images)
        for tokens, groups in zip(encoded.tokens, encoded.encoder_tokens, strict=True):
            torch.testing.assert_close(family.project(groups), tokens, atol=1e-5, rtol=1e-4)


def test_model_without_full_attention_block_is_refused(family):
    family.model.model.visual.fullatt_block_indexes = [7, 15]
    with pytest.raises(
        UnsupportedModelError, match="none of the 4 blocks of the vision encoder attends to a whole slice"
    ):
        _ = family.scoring_attention
