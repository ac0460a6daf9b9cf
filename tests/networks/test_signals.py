# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The signals for pruners, compared with the stock model's attention and with loops in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from conftest import SIZES
from stock_oracle import PATCHES, consecutive_patches

from monai_medpruner.errors import SettingsError
from monai_medpruner.networks.encoding import encode_and_prune_each, encode_scored, prune_scored
from monai_medpruner.networks.families import family_of
from monai_medpruner.pruners import (
    AveragePoolingPruner,
    ClassAttention,
    HiddenStates,
    Keys,
    NucleusPruner,
    PrunedTokens,
    QuestionEmbedding,
    ReceivedAttention,
    Signal,
    SlicePositions,
    SliceTokens,
    TokenPruner,
)
from monai_medpruner.testing.eager_attention import eager_attention_weights

CLOSE = {"atol": 2e-5, "rtol": 1e-4}


@dataclass(frozen=True)
class Onlooker(TokenPruner):
    """Keeps every token and stores its inputs."""

    asked: frozenset[Signal] = frozenset()
    whole: bool = False
    given: list[SliceTokens] = field(default_factory=list, compare=False, hash=False)

    @property
    def signals(self) -> frozenset[Signal]:
        return self.asked

    @property
    def whole_volume(self) -> bool:
        return self.whole

    def __call__(self, slices: SliceTokens, max_tokens: int | None = None) -> PrunedTokens:
        self.given.append(slices)
        return super().__call__(slices)

    def score(self, slices: SliceTokens) -> torch.Tensor:
        return slices.valid.float()

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        return slices.valid


@dataclass(frozen=True)
class MostAlikeTheQuestion(TokenPruner):
    """Keeps the half of each slice's tokens with the highest cosine similarity to the mean of the question."""

    contextual_ratio: float = 0.0

    @property
    def signals(self) -> frozenset[Signal]:
        return frozenset({QuestionEmbedding()})

    def score(self, slices: SliceTokens) -> torch.Tensor:
        question = slices.signal(QuestionEmbedding()).mean(0)
        return torch.cosine_similarity(slices.tokens, question, dim=-1).masked_fill(~slices.valid, -torch.inf)

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        return score.argsort(dim=1, descending=True, stable=True).argsort(dim=1) < slices.valid.sum(1, keepdim=True) / 2


def given(model: Any, inputs: dict[str, Any], *signals: Signal, **arguments: Any) -> SliceTokens:
    """Return the inputs of a pruner that needs some signals, for all slices."""
    pruner = Onlooker(asked=frozenset(signals), whole=True)
    encode_and_prune_each(family_of(model), [pruner], inputs, **arguments)
    return pruner.given[0]


def named_blocks(model: Any) -> list[int]:
    """Return the first and the last block with full attention."""
    blocks = family_of(model).whole_slice_blocks
    return sorted({blocks[0], blocks[-1]})


def patches_of(model: Any, grid: tuple[int, int]) -> torch.Tensor:
    """Return the rows of the attention matrix for each token, ``(N, n)``, without the family's code."""
    return PATCHES.get(model.config.model_type, consecutive_patches)(model, grid)


def captured(model: Any, module: Any, run: Callable[[], Any]) -> dict[str, Any]:
    """Return the arguments of a module's first call."""
    calls: list[dict[str, Any]] = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append({**({"hidden_states": args[0]} if args else {}), **kwargs}),
        with_kwargs=True,
    )
    with torch.no_grad():
        run()
    handle.remove()
    return calls[0]


@pytest.fixture
def one(model, prompts):
    """A slice, its image inputs and a function that encodes it."""
    family = family_of(model)
    inputs = family.slice_inputs(prompts([(64, 96)]), 0, 1)
    return inputs, family.token_grids(inputs)[0], lambda: family.encode(inputs)


def test_received_attention_of_a_named_block(model, one):
    inputs, grid, encode = one
    family = family_of(model)
    for block in named_blocks(model):
        (weights,) = eager_attention_weights(model, family.attention_blocks[block], encode)
        of_token = patches_of(model, grid)
        every = of_token.flatten().sort().values
        among = weights[0].double()[:, every][:, :, every]
        received = torch.zeros(weights.shape[-1], dtype=torch.float64)
        received[every] = (among / among.sum(-1, keepdim=True)).mean(0).sum(0)
        found = given(model, inputs, ReceivedAttention(block)).signal(ReceivedAttention(block))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found[0].double(), received[of_token].mean(-1), **CLOSE)
    first, last = named_blocks(model)
    both = given(model, inputs, ReceivedAttention(first), ReceivedAttention(last))
    assert not torch.allclose(both.signal(ReceivedAttention(first)), both.signal(ReceivedAttention(last)), atol=1e-3)
    scoring = given(model, inputs, ReceivedAttention()).signal(ReceivedAttention())
    assert torch.equal(scoring, both.signal(ReceivedAttention(last)))


def test_negative_blocks_count_from_the_last(model, one):
    family = family_of(model)
    last = family.whole_slice_blocks[-1]
    negative = last - len(family.attention_blocks)
    found = given(model, one[0], Keys(last), Keys(negative))
    assert torch.equal(found.signal(Keys(last)), found.signal(Keys(negative)))


def test_hidden_states_and_keys_of_a_named_block(model, one):
    """Hidden states equal those in a hook of this test; keys equal those in the block's attention, per head."""
    inputs, grid, encode = one
    family = family_of(model)
    of_token = patches_of(model, grid)
    for block in named_blocks(model):
        module = family.attention_blocks[block]
        hidden = captured(model, module, encode)["hidden_states"]
        hidden = hidden.reshape(-1, hidden.shape[-1]).double()
        found = given(model, inputs, HiddenStates(block), Keys(block))
        states = found.signal(HiddenStates(block))
        assert states.dtype == torch.float32
        assert states.shape == (1, len(of_token), hidden.shape[-1])
        for token, patches in enumerate(of_token.tolist()):
            expected = sum(hidden[patch] for patch in patches) / len(patches)
            torch.testing.assert_close(states[0, token].double(), expected, **CLOSE)
        keys = eager_keys(model, module, encode).double()
        for token, patches in enumerate(of_token.tolist()):
            expected = sum(keys[:, patch].mean(0) for patch in patches) / len(patches)
            torch.testing.assert_close(found.signal(Keys(block))[0, token].double(), expected, **CLOSE)


def eager_keys(model: Any, module: Any, run: Callable[[], Any]) -> torch.Tensor:
    """Return the keys ``(heads, M, d)`` in the stock model's eager attention."""
    import sys
    from unittest import mock

    modeling = sys.modules[type(module).__module__]
    eager, keys = modeling.eager_attention_forward, []

    def remember(caller, query, key, *args, **kwargs):
        keys.extend([key] if caller is module else [])
        return eager(caller, query, key, *args, **kwargs)

    with mock.patch.object(modeling, "eager_attention_forward", remember):
        eager_attention_weights(model, module, run)
    return keys[0][0]


@pytest.mark.parametrize("checkpoint", ["internvl"], indirect=True)
def test_class_attention(model, one):
    """Equals the first row of the eager attention weights, in the scoring layer and in a named block."""
    inputs, grid, encode = one
    family = family_of(model)
    of_token = patches_of(model, grid)
    for block in (None, 0, 1):
        (weights,) = eager_attention_weights(model, family.attention_block(block), encode)
        row = weights[0].double().mean(0)[0]
        found = given(model, inputs, ClassAttention(block)).signal(ClassAttention(block))
        expected = torch.stack([row[patches].mean() for patches in of_token]) * of_token.numel()
        torch.testing.assert_close(found[0].double(), expected, **CLOSE)
        assert found[0].mean().item() == pytest.approx(1 - row[0].item(), abs=1e-5)


def test_families_without_a_class_token(model, one):
    if model.config.model_type == "internvl":
        pytest.skip("it has one")
    with pytest.raises(SettingsError, match=f"{model.config.model_type} has no class token.*ClassAttention"):
        given(model, one[0], ClassAttention())


@pytest.mark.parametrize("block", [99, -99])
def test_blocks_that_do_not_exist(model, one, block):
    with pytest.raises(SettingsError, match=f"has {len(family_of(model).attention_blocks)} blocks.* index {block}"):
        given(model, one[0], ReceivedAttention(block))
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("checkpoint", ["qwen2_5_vl"], indirect=True)
@pytest.mark.parametrize("block", [0, 3, -1])
def test_blocks_that_attend_within_windows(model, one, block):
    with pytest.raises(SettingsError, match=rf"block {block} .* attends within windows.*are \[1, 2\]"):
        given(model, one[0], HiddenStates(block))


def test_slice_positions(model, prompts):
    inputs = prompts(SIZES)
    positions = [-12.5, -10.0, -7.5, -1.25]
    whole = given(model, inputs, SlicePositions(), slice_positions_mm=positions)
    assert whole.signal(SlicePositions()).tolist() == positions
    assert whole.signal(SlicePositions()).dtype == torch.float32
    pruner = Onlooker(asked=frozenset({SlicePositions()}))
    encode_and_prune_each(family_of(model), [pruner], inputs, 3, slice_positions_mm=torch.tensor(positions))
    assert [one.signal(SlicePositions()).tolist() for one in pruner.given] == [positions[:3], positions[3:]]
    for wrong, message in ((None, "give slice_positions_mm"), (positions[:3], "got 3 for 4 slices")):
        with pytest.raises(SettingsError, match=message):
            given(model, inputs, SlicePositions(), slice_positions_mm=wrong)


def question_of(model: Any, seed: int) -> torch.Tensor:
    """Input embeddings of some text, ``(T, C)``."""
    ids = torch.randint(20, 200, (5,), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model.get_input_embeddings()(ids)


def test_question(model, prompts):
    """Slices are encoded once and pruned per question, as in a loop over tokens in float64."""
    family, inputs, pruner = family_of(model), prompts(SIZES), MostAlikeTheQuestion()
    assert pruner.needs_question
    assert not NucleusPruner().needs_question
    scored = encode_scored(family, [pruner], inputs, 3)
    kept = []
    for seed in (1, 2):
        question = question_of(model, seed)
        pruned = prune_scored(family, pruner, scored, question)
        mean = question.double().mean(0)
        for tokens, keep in zip(scored.encoded.tokens, pruned.keep, strict=True):
            similarity = [float(one @ mean / one.norm() / mean.norm()) for one in tokens.double()]
            best = sorted(range(len(tokens)), key=lambda j, values=similarity: -values[j])[: -(-len(tokens) // 2)]
            assert keep.nonzero().flatten().tolist() == sorted(best)
        (at_once,) = encode_and_prune_each(family, [pruner], inputs, 3, question=question)
        assert all(map(torch.equal, at_once.keep, pruned.keep))
        assert all(map(torch.equal, at_once.tokens, pruned.tokens))
        kept.append(torch.cat(pruned.keep))
    assert not torch.equal(*kept)
    with pytest.raises(SettingsError, match="give question"):
        encode_and_prune_each(family, [pruner], inputs)
    with pytest.raises(SettingsError, match="MostAlikeTheQuestion needs QuestionEmbedding"):
        prune_scored(family, pruner, scored)


def test_separate_encoding_and_pruning(model, prompts):
    """Equals the combined call, for pruners of single slices and of whole volumes."""
    family, inputs = family_of(model), prompts(SIZES)
    slice_pruner = NucleusPruner(tau=0.6, temperature=0.3, contextual_ratio=0.1)
    pruners = [slice_pruner, replace(slice_pruner, scope="volume", merge_space="encoder"), None, AveragePoolingPruner()]
    scored = encode_scored(family, pruners, inputs)
    for pruner, expected in zip(pruners, encode_and_prune_each(family, pruners, inputs), strict=True):
        found = prune_scored(family, pruner, scored)
        assert all(map(torch.equal, found.tokens, expected.tokens))
        assert all(map(torch.equal, found.keep, expected.keep))
        assert set(found.seconds) == {"encode", "select"}
        for record, other in zip(found.records, expected.records, strict=True):
            assert (record.importance is None) == (other.importance is None) == (pruner in pruners[2:])
            assert torch.equal(record.merged_into, other.merged_into)
    with pytest.raises(SettingsError, match=r"Onlooker needs HiddenStates\(block=None\)"):
        prune_scored(family, Onlooker(asked=frozenset({HiddenStates()})), scored)


def test_only_needed_signals_are_computed(model, prompts, monkeypatch):
    """Only needed blocks get hooks, each pruner gets its own signals, and keys do not compute attention."""
    inputs = prompts(SIZES[:2])
    family = family_of(model)
    blocks = list(family.attention_blocks)
    hooked = []
    encode = family.encode

    def watched(images):
        hooked.append([index for index, block in enumerate(blocks) if block._forward_pre_hooks])
        return encode(images)

    monkeypatch.setattr(family, "encode", watched)
    monkeypatch.setattr("monai_medpruner.networks.block_signals.attention_received", None)
    first, last = named_blocks(model)
    keys, states = Onlooker(asked=frozenset({Keys(first)})), Onlooker(asked=frozenset({HiddenStates(last)}))
    encode_and_prune_each(family, [keys, None, AveragePoolingPruner()], inputs)
    encode_and_prune_each(family, [keys, states], inputs)
    encode_and_prune_each(family, [AveragePoolingPruner(), None], inputs)
    assert hooked == [[first], sorted({first, last}), []]
    assert [set(one.signals) for one in keys.given] == [{Keys(first)}] * 2
    assert [set(one.signals) for one in states.given] == [{HiddenStates(last)}]
