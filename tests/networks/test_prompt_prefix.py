# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The beginning of the prompt is run once for all questions of a study, and no answer changes by it."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from monai.data import MetaTensor

from monai_medpruner.engines import Conversation, TransformersEngine, VolumePrompt, VolumeQA
from monai_medpruner.networks import Checkpoint, PrunedVLM, TransformersEncoder
from monai_medpruner.networks.prompt_prefix import PromptPrefix
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.testing import randomize_weights

PRUNER = NucleusPruner(tau=0.5, temperature=0.5)
QUESTIONS = ["Is there a lesion?", "Which organ? In one word.", ["Is it?", "Yes.", "Where is it, and how large?"]]


@pytest.fixture(scope="module")
def loaded(checkpoint):
    """A checkpoint whose answers depend on what it sees."""
    loaded = Checkpoint(str(checkpoint))
    randomize_weights(loaded.model)
    return loaded


def asking(loaded, pruner=PRUNER, preserve=None, **options):
    encoder = TransformersEncoder(loaded, pruner, preserve_position_ids=preserve)
    engine = TransformersEngine(loaded, max_new_tokens=12, **options)
    return VolumeQA(encoder, engine, VolumePrompt("Read the slices."))


def volume(depth=5, seed=0):
    return MetaTensor(torch.rand(1, 64, 96, depth, generator=torch.Generator().manual_seed(seed)))


def tokens_run(model):
    """Lengths of the inputs of the language model's first layer, call by call."""
    lengths = []
    layer = next(one for name, one in model.named_modules() if name.endswith("language_model.layers.0"))
    handle = layer.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append((args[0] if args else kwargs["hidden_states"]).shape[1]),
        with_kwargs=True,
    )
    return lengths, handle


@pytest.mark.parametrize("preserve", [None, True, False])
@pytest.mark.parametrize("pruner", [PRUNER, None], ids=["pruned", "unpruned"])
def test_same_answers_token_for_token(loaded, pruner, preserve):
    """In any order, against an engine that runs every prompt whole."""
    once, whole = asking(loaded, pruner, preserve), asking(loaded, pruner, preserve, reuse_prefix=False)
    study = once.encode(volume())
    expected = [whole.answer(study, one) for one in QUESTIONS]
    assert len({answer.text for answer in expected}) > 1
    found = [once.answer(study, one) for one in QUESTIONS]
    again = [once.answer(study, one) for one in reversed(QUESTIONS)][::-1]
    for want, first, second in zip(expected, found, again, strict=True):
        assert want.text == first.text == second.text
        assert want.new_tokens == first.new_tokens == second.new_tokens
        assert want.prompt_tokens == first.prompt_tokens
        assert want.reused_tokens == 0
    assert [answer.reused_tokens > 0 for answer in found] == [False, True, True]
    assert all(answer.reused_tokens > answer.visual_tokens for answer in again)


def test_logits_do_not_depend_on_the_questions_before(loaded):
    """To the bit: a question first, and the same after others, which a resumed run relies on."""
    once = asking(loaded)
    study, scores = once.encode(volume()), []
    vlm, prefix = PrunedVLM(loaded.model), PromptPrefix()
    for one in (*QUESTIONS[:2], QUESTIONS[0]):
        conversation = once.engine.prompt_text(study, Conversation.about(once.prompt, one))
        inputs = loaded.tokenizer(conversation, add_special_tokens=False, return_tensors="pt")
        output = vlm.generate(
            encoded=study.slices,
            prefix=prefix,
            **inputs,
            max_new_tokens=5,
            min_new_tokens=5,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
        scores.append(torch.stack(output.logits))
    assert torch.equal(scores[0], scores[2])
    assert not torch.equal(scores[0], scores[1])


def test_only_the_rest_is_run(loaded):
    once = asking(loaded)
    study = once.encode(volume())
    lengths, handle = tokens_run(loaded.model)
    with handle:
        first = once.answer(study, "Is it?")
        assert sum(lengths[:2]) == first.prompt_tokens
        assert first.reused_tokens == 0
        lengths.clear()
        second = once.answer(study, "Is it there?")
        assert lengths[0] == second.prompt_tokens - second.reused_tokens
        assert set(lengths[1:]) <= {1}
    assert second.reused_tokens > 0.5 * second.prompt_tokens


def test_another_study_replaces_it(loaded):
    """Also one that differs in one voxel, one slice or its text alone."""
    once, whole = asking(loaded), asking(loaded, reuse_prefix=False)
    one = volume()
    other = one.clone()
    other[0, 3, 3, 2] = 1 - other[0, 3, 3, 2]
    studies = [once.encode(one), once.encode(other), once.encode(volume(depth=6)), once.encode(one)]
    studies.append(studies[0].of_slices([0, 1, 2, 3]))
    unpruned = TransformersEncoder(loaded)
    studies += [unpruned.encode(one), unpruned.encode(volume(seed=1))]  # alike but for the tokens themselves
    bytes_held, before = [], None
    for study in (*studies, *reversed(studies)):
        answers = [once.answer(study, question) for question in QUESTIONS[:2]]
        assert [answer.text for answer in answers] == [whole.answer(study, one).text for one in QUESTIONS[:2]]
        assert [answer.reused_tokens > 0 for answer in answers] == [study is before, True]
        before = study
        bytes_held.append(once.engine._prefix.held_bytes)
    renamed = VolumeQA(once.encoder, once.engine, VolumePrompt("Look at the slices."))
    assert renamed.answer(studies[0], "Is it?").reused_tokens == 0
    # one prefix at a time, with the rows of one question and answer behind it
    assert max(bytes_held[:4]) < 2 * min(bytes_held[:4])


def test_nothing_is_held_beyond_the_study(loaded):
    once = asking(loaded)
    study = once.encode(volume())
    once.answer(study, "Is it?")
    assert once.engine._prefix.held_bytes > 0
    del study
    gc.collect()
    assert once.engine._prefix.held_bytes == 0
    once(volume()[None], [["a?", "b?"]])
    gc.collect()
    assert once.engine._prefix.held_bytes == 0


def test_what_is_held_is_bounded_by_the_window(loaded):
    """Sliding layers hold their window, full ones the beginning and no more than one answer."""
    once = asking(loaded)
    study = once.encode(volume())
    for one in QUESTIONS:
        answer = once.answer(study, one)
    held = once.engine._prefix._held
    for keys, values in held.layers:
        assert keys.shape[-2] <= held.length
        assert keys.untyped_storage().nbytes() <= keys.nbytes * (answer.prompt_tokens + 12) / keys.shape[-2]
        assert values.shape == keys.shape


def test_an_error_leaves_nothing_behind(loaded):
    once = asking(loaded)
    study = once.encode(volume())
    expected = once.answer(study, "Is it?").text

    def stop(*_):
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        VolumeQA(once.encoder, once.engine, once.prompt, stop).answer(study, "Is it there?")
    assert once.engine._prefix.held_bytes == 0
    again = once.answer(study, "Is it?")
    assert (again.text, again.reused_tokens) == (expected, 0)


def test_threads_share_an_engine(loaded):
    once, whole = asking(loaded), asking(loaded, reuse_prefix=False)
    studies = [once.encode(volume(seed=seed)) for seed in (0, 1)]
    asked = [(study, f"Question {number}?") for number in range(4) for study in studies]
    expected = [whole.answer(*one).text for one in asked]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda one: once.answer(*one).text, asked))
    assert found == expected


def test_another_kind_of_cache_runs_prompts_whole(loaded, monkeypatch):
    once = asking(loaded)
    assert once.engine.describe()["prefix_reuse"] is True
    study = once.encode(volume())
    expected = once.answer(study, "Is it?").text
    monkeypatch.setattr(loaded.model.generation_config, "cache_implementation", "static")
    assert once.engine.describe()["prefix_reuse"] is False
    answers = [once.answer(study, "Is it?") for _ in range(2)]
    assert [(answer.text, answer.reused_tokens) for answer in answers] == [(expected, 0)] * 2
    assert asking(loaded, reuse_prefix=False).engine.describe()["prefix_reuse"] is False
