# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Patches that are left out of the encoder's sequence: the stock encoder on whole slices that nobody attends to."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from conftest import SIZES
from monai.data import MetaTensor
from transformers import AutoModelForImageTextToText
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.vision_utils import get_vision_window_index

from monai_medpruner.engines import VolumeQA
from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import PrunedVLM
from monai_medpruner.networks.checkpoint import load_processors
from monai_medpruner.networks.encoding import encode_and_prune_each, encode_scored
from monai_medpruner.networks.families import family_class
from monai_medpruner.pruners import (
    PRUNERS,
    HiddenStates,
    Keys,
    NucleusPruner,
    RandomTokensPruner,
    ReceivedAttention,
    Signal,
    TokenPruner,
)
from monai_medpruner.results import StudyRecord
from monai_medpruner.testing import prompt_inputs, randomize_weights, save_tiny_checkpoint
from monai_medpruner.transforms import CropBody, FindBody, HUWindows
from monai_medpruner.transforms.body_tokens import body_tokens

VARIABLE = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "video_llama_3"]
EXACT = {"atol": 1e-9, "rtol": 1e-9}
# tall and wide enough for several windows, which are cut off at the edges
SLICES = [(160, 224), (224, 160), *SIZES[1:3]]


@pytest.fixture(params=VARIABLE)
def family(request, tmp_path):
    folder = save_tiny_checkpoint(request.param, tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="sdpa").eval()
    randomize_weights(model)
    bound = family_class(request.param)(model.double())
    bound.processors = load_processors(str(folder))
    return bound


def inputs_of(family):
    inputs = prompt_inputs(family, *family.processors, SLICES)
    return {name: one.double() if one.is_floating_point() else one for name, one in inputs.items()}


def masks_of(family, inputs) -> list[torch.Tensor]:
    """A blob, everything, one token, and single tokens here and there: whole windows are left out, too."""
    masks = []
    for number, (rows, columns) in enumerate(family.token_grids(inputs)):
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        kinds = [
            (row - rows / 2) ** 2 / rows**2 + (column - columns / 3) ** 2 / columns**2 < 0.08,
            (row * 7 + column * 5) % 3 == 0,
            torch.ones(rows, columns, dtype=torch.bool),
            (row == rows - 1) & (column == 0),
        ]
        masks.append(kinds[number].flatten())
        assert masks[-1].any()
    return masks


@contextmanager
def hidden_patches(family, inputs, inside, seen):
    """Let the stock encoder attend over whole slices and windows with a mask that hides some patches as keys."""
    per_token = family.patches_per_token_in(inputs)
    tokens = torch.cat(inside)
    if family.model.config.model_type == "qwen2_5_vl":
        vision = family.model.model.visual
        order, _ = get_vision_window_index(
            inputs["image_grid_thw"], vision.spatial_merge_size, vision.window_size, vision.patch_size
        )
        tokens = tokens[order]
    hidden = ~tokens.repeat_interleave(per_token)

    def attend(module, query, key, value, attention_mask, scaling, cu_seq_lens_q, **_):
        segment = torch.bucketize(torch.arange(query.shape[2]), cu_seq_lens_q[1:], right=True)
        # a hidden patch sees itself, so that its row is a number; nobody else sees it
        allowed = (segment[:, None] == segment) & (~hidden | torch.eye(len(hidden), dtype=torch.bool))
        weights = (query @ key.transpose(-1, -2) * scaling).masked_fill(~allowed, -torch.inf).softmax(-1)
        seen[module] = (weights[0], key[0], hidden)
        return (weights @ value).transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS["oracle_flash_layout"] = attend
    for config in family.vision_configs:
        config._attn_implementation = "oracle_flash_layout"
    try:
        yield
    finally:
        for config in family.vision_configs:
            config._attn_implementation = "sdpa"
        del ALL_ATTENTION_FUNCTIONS["oracle_flash_layout"]


class Watcher(TokenPruner):
    """Asks for signals and keeps what it gets."""

    @property
    def signals(self) -> frozenset[Signal]:
        return frozenset({ReceivedAttention(), Keys(), HiddenStates()})

    def select(self, score, slices):
        return slices.valid


@torch.no_grad()
def test_equals_the_stock_encoder_with_hidden_patches(family):
    """Tokens, DeepStack rows, tokens before the projector, and the signals, all in float64."""
    inputs = inputs_of(family)
    images = family.slice_inputs(inputs, 0, len(SLICES))
    inside = masks_of(family, inputs)
    assert 0.1 < torch.cat(inside).double().mean() < 0.9
    seen: dict = {}
    with hidden_patches(family, inputs, inside, seen):
        expected = family.encode(images)
    for batch in (None, 1):
        scored = encode_scored(family, [Watcher(merge_space="encoder")], inputs, batch, inside=inside)
        found = scored.encoded
        pairs = [(found.tokens, expected.tokens), (found.encoder_tokens, expected.encoder_tokens)]
        pairs += list(zip(found.deepstack_features, expected.deepstack_features, strict=True))
        for ones, others in pairs:
            for one, other, mask in zip(ones, others, inside, strict=True):
                torch.testing.assert_close(one[mask], other[mask], **EXACT)
                assert not one[~mask].any()
        weights, keys, hidden = seen[family.scoring_attention]
        sums = weights[:, ~hidden].sum(1).mean(0)
        lengths = [len(mask) * family.patches_per_token_in(inputs) for mask in inside]
        parts = zip(sums.split(lengths), keys.mean(0).split(lengths), family.token_grids(inputs), strict=True)
        for number, ((received, key, grid), mask) in enumerate(zip(parts, inside, strict=True)):
            score = family.group_patches(received[None], grid).mean(-1)[0]
            key_of = family.group_patches(key.T[None], grid).mean(-1)[0].T
            found_score = scored.signals[ReceivedAttention()][number, : len(mask)]
            torch.testing.assert_close(found_score[mask].double(), score[mask], atol=1e-4, rtol=1e-4)
            assert found_score[mask].mean().item() == pytest.approx(1, abs=1e-4)
            found_key = scored.signals[Keys()][number, : len(mask)]
            torch.testing.assert_close(found_key[mask].double(), key_of[mask], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_hiding_matters(family):
    """The mask of the oracle changes the tokens, so that equality says something."""
    inputs = inputs_of(family)
    images = family.slice_inputs(inputs, 0, len(SLICES))
    inside = masks_of(family, inputs)
    stock = family.encode(images)
    scored = encode_scored(family, [None], inputs, inside=inside)
    for number in (0, 1, 3):
        mask = inside[number]
        assert not torch.allclose(scored.encoded.tokens[number][mask], stock.tokens[number][mask], atol=1e-3)
    torch.testing.assert_close(scored.encoded.tokens[2], stock.tokens[2], **EXACT)


def test_all_inside_is_the_stock_encoder(family):
    inputs = inputs_of(family)
    every = [torch.ones(rows * columns, dtype=torch.bool) for rows, columns in family.token_grids(inputs)]
    pruners = [None, NucleusPruner(tau=0.5, temperature=0.5)]
    for one, other in zip(
        encode_and_prune_each(family, pruners, inputs, inside=every),
        encode_and_prune_each(family, pruners, inputs),
        strict=True,
    ):
        assert all(map(torch.equal, one.keep, other.keep))
        for a, b in zip(one.tokens, other.tokens, strict=True):
            torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("name", [name for name in PRUNERS if name != "cdpruner"])
def test_no_pruner_keeps_what_was_left_out(family, name):
    """Nor merges it; and the prompt takes what is left as it takes any pruned slice."""
    inputs = inputs_of(family)
    inside = masks_of(family, inputs)
    for pruner in (PRUNERS[name](), PRUNERS[name](contextual_ratio=0.2)):
        for budget in (None, 40):
            (pruned,) = encode_and_prune_each(family, [pruner], inputs, inside=inside, max_tokens=budget)
            assert budget is None or sum(map(len, pruned.tokens)) <= budget
            for record, mask, tokens in zip(pruned.records, inside, pruned.tokens, strict=True):
                assert not (record.keep & ~mask).any()
                assert record.keep.any()
                assert len(tokens) == int(record.keep.sum())
                assert (record.merged_into[~mask] == -1).all()
                carried = record.merged_into[mask & (record.merged_into >= 0)]
                assert record.keep[carried].all()
                assert tokens.isfinite().all()


@torch.no_grad()
def test_prompt(family):
    inputs = inputs_of(family)
    inside = masks_of(family, inputs)
    (encoded,) = encode_and_prune_each(family, [None], inputs, inside=inside)
    assert all(map(torch.equal, encoded.keep, inside))
    logits = PrunedVLM(family.model, RandomTokensPruner())(encoded=encoded, **inputs).logits
    left_out = int((~torch.cat(inside)).sum())
    assert logits.shape[1] == inputs["input_ids"].shape[1] - left_out
    assert logits.isfinite().all()


def test_an_encoder_of_fixed_size(tmp_path):
    model = AutoModelForImageTextToText.from_pretrained(save_tiny_checkpoint("gemma3", tmp_path))
    family = family_class("gemma3")(model)
    inputs = prompt_inputs(family, *load_processors(str(tmp_path)), SIZES[:1])
    with pytest.raises(SettingsError, match="gemma3 takes whole slices"):
        encode_scored(family, [None], inputs, inside=[torch.ones(16, dtype=torch.bool)])


def body() -> MetaTensor:
    voxels = torch.full((1, 128, 192, 6), -1000.0)
    row, column = torch.meshgrid(torch.arange(128.0), torch.arange(192.0), indexing="ij")
    for center in ((30, 30), (98, 160)):  # the box around both is nearly the whole slice
        voxels[0, (row - center[0]) ** 2 + (column - center[1]) ** 2 < 24**2] = 40.0
    return MetaTensor(voxels, affine=torch.diag(torch.tensor([2.0, 2, 4, 1], dtype=torch.float64)))


@pytest.mark.parametrize("model_type", VARIABLE)
@pytest.mark.parametrize("pruner", [None, NucleusPruner(tau=0.5, temperature=0.5)])
def test_a_volume(tmp_path, model_type, pruner):
    """From file to answer: the record has the whole grid, what was left out counts as not kept."""
    folder = str(save_tiny_checkpoint(model_type, tmp_path))
    network = VolumeQA.from_pretrained(folder, pruner, max_new_tokens=3)

    def encoded(crop):
        return network.encode(CropBody(crop)(HUWindows()(FindBody(crop)(body()))))

    box, patches = encoded("body"), encoded("body_patches")
    assert box.grids == patches.grids
    assert patches.record.unpruned_tokens == box.record.unpruned_tokens
    assert sum(patches.record.kept_tokens) < sum(box.record.kept_tokens)
    volume = CropBody("body_patches")(HUWindows()(FindBody("body_patches")(body())))
    masks = body_tokens(volume.meta, tuple(volume.shape[1:3]), patches.grids)
    assert any(not mask.all() for mask in masks)
    for record, mask, tokens in zip(patches.record.slices, masks, patches.tokens, strict=True):
        assert not (record.keep & ~mask).any()
        assert len(tokens) == int(record.keep.sum())
        assert pruner is not None or torch.equal(record.keep, mask)
    loaded = StudyRecord.load(patches.record.save(tmp_path / "a.safetensors"))
    assert loaded.kept_tokens == patches.record.kept_tokens
    (answers,) = network(volume[None], [["Is it?"]])
    assert answers.record.kept_tokens == patches.record.kept_tokens
