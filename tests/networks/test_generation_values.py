# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""How answers are generated: by the engine's settings and not by the checkpoint's file, up to a limit."""

from __future__ import annotations

import json

import pytest
import torch
from monai.data import MetaTensor
from tokenizers import AddedToken
from transformers import GenerationConfig

from monai_medpruner.engines import VolumeQA, answer_tokens
from monai_medpruner.engines import transformers_engine as engines
from monai_medpruner.errors import PromptError, SettingsError
from monai_medpruner.networks import PrunedVLM
from monai_medpruner.testing import randomize_weights, save_tiny_checkpoint

LIMIT = 12
#: values of a ``generation_config.json`` that change which token follows
VALUES = {
    "penalty": {"repetition_penalty": 1.9},
    "sampling": {"do_sample": True, "temperature": 1.9, "top_k": 90, "top_p": 0.99},
    "beams": {"num_beams": 3, "length_penalty": 3.0, "early_stopping": True},
    "sequences": {"num_beams": 2, "num_return_sequences": 2},
    "repeats": {"no_repeat_ngram_size": 1},
    "limits": {"max_length": 2, "min_length": 900, "min_new_tokens": 10},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "lookup": {"prompt_lookup_num_tokens": 3},
    "end": {"forced_eos_token_id": 65},
    "decay": {"exponential_decay_length_penalty": [1, 9.0]},
    "guidance": {"guidance_scale": 4.0},
    "outputs": {"return_dict_in_generate": True, "output_scores": True, "output_attentions": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_checkpoint("qwen3_vl", tmp_path_factory.mktemp("qwen3_vl"))


@pytest.fixture
def network(folder):
    network = VolumeQA.from_pretrained(str(folder), max_new_tokens=LIMIT, device="cpu")
    randomize_weights(network.engine.checkpoint.model)
    return network


def volume():
    return MetaTensor(torch.rand(1, 64, 64, 2, generator=torch.Generator().manual_seed(4)))


def asked(network, **limit):
    return network.answer(network.encode(volume()), "Is it?", **limit)


def stated(network, **values):
    """A configuration with values, and the ids of the tokens that the tiny checkpoint states."""
    own = network.engine.checkpoint.model.generation_config
    return GenerationConfig.from_dict({**values, "pad_token_id": own.pad_token_id, "eos_token_id": own.eos_token_id})


@pytest.mark.parametrize("name", VALUES)
def test_values_of_the_checkpoint_change_no_answer(network, monkeypatch, name):
    model, expected = network.engine.checkpoint.model, asked(network)
    config = stated(network, **VALUES[name])
    monkeypatch.setattr(model, "generation_config", config)
    answer = asked(network)
    assert (answer.text, answer.new_tokens) == (expected.text, expected.new_tokens)
    described = network.engine.describe()
    assert described["checkpoint"]["overridden"].keys() == VALUES[name].keys()
    assert (described["do_sample"], described["num_beams"], described["repetition_penalty"]) == (False, 1, 1.0)
    assert json.loads(json.dumps(described)) == described
    assert model.generation_config is config  # the caller's model is left as it is


def test_tokens_that_the_checkpoint_suppresses(network, monkeypatch):
    """A value without which the answer is another one: the test would see it if it were kept."""
    model, expected = network.engine.checkpoint.model, asked(network)
    first = network.engine.checkpoint.tokenizer(expected.text, add_special_tokens=False)["input_ids"][0]
    monkeypatch.setattr(model, "generation_config", stated(network, suppress_tokens=[first]))
    assert asked(network).text == expected.text
    study = network.encode(volume())
    inputs = network.engine.checkpoint.tokenizer(
        network.engine.prompt_text(study, engines.Conversation.about(network.prompt, "Is it?")),
        add_special_tokens=False,
        return_tensors="pt",
    )
    # the wrapper, a drop-in for the model, goes by what the model states
    output = PrunedVLM(model).generate(**inputs, encoded=study.slices, max_new_tokens=LIMIT, do_sample=False)
    assert first not in output[0, inputs["input_ids"].shape[1] :].tolist()


def test_values_in_the_file(folder, tmp_path, network):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    own = json.loads((folder / "generation_config.json").read_text())
    values = {"repetition_penalty": 1.9, "do_sample": True, "temperature": 0.2, "top_k": 20, "top_p": 0.8}
    (tmp_path / "generation_config.json").write_text(json.dumps({**own, **values}))
    other = VolumeQA.from_pretrained(str(tmp_path), max_new_tokens=LIMIT, device="cpu")
    randomize_weights(other.engine.checkpoint.model)
    assert asked(other).text == asked(network).text
    assert other.describe()["engine"]["checkpoint"]["overridden"] == values


def test_an_answer_at_its_limit_is_truncated(network, monkeypatch):
    """An end token is set to what the model writes fourth, so that the answer ends there by itself."""
    cut = asked(network)
    assert (cut.truncated, cut.new_tokens) == (True, LIMIT)
    assert cut.summary()["truncated"] is True
    model = network.engine.checkpoint.model
    study = network.encode(volume())
    conversation = engines.Conversation.about(network.prompt, "Is it?")
    inputs = network.engine.checkpoint.tokenizer(
        network.engine.prompt_text(study, conversation), add_special_tokens=False, return_tensors="pt"
    )
    output = PrunedVLM(model).generate(**inputs, encoded=study.slices, max_new_tokens=LIMIT, do_sample=False)
    written = output[0, inputs["input_ids"].shape[1] :].tolist()
    end = written[3]
    length = written.index(end) + 1
    for ids in (end, [end, 7]):
        monkeypatch.setattr(model, "generation_config", GenerationConfig(eos_token_id=ids, pad_token_id=0))
        for limit in (LIMIT, length):
            answer = asked(network, max_new_tokens=limit)
            assert (answer.truncated, answer.new_tokens) == (False, length)


def test_limit_of_one_answer(network):
    assert [asked(network, max_new_tokens=limit).new_tokens for limit in (3, None, 5)] == [3, LIMIT, 5]
    with pytest.raises(SettingsError, match="max_new_tokens must be at least 1"):
        asked(network, max_new_tokens=0)


def test_answer_takes_the_room_that_the_context_leaves(network, monkeypatch):
    """A limit above it, as the 16,384 tokens of the released evaluation, refuses no prompt."""
    monkeypatch.setattr(answer_tokens, "_LEAST_ROOM", 4)
    config = network.engine.checkpoint.model.config.get_text_config()
    length = asked(network).prompt_tokens
    for room, limit in ((5, 16384), (4, 16384), (3, 3)):
        monkeypatch.setattr(config, "max_position_embeddings", length + room)
        answer = asked(network, max_new_tokens=limit)
        assert (answer.new_tokens, answer.truncated) == (room, True)
    with pytest.raises(PromptError, match=f"has {length} tokens and the answer may need 4"):
        asked(network, max_new_tokens=16384)


@pytest.mark.parametrize("special", [True, False])
def test_reasoning_is_kept_beside_the_answer(network, monkeypatch, special):
    """Whether the marks of reasoning are tokens of their own, special ones, or text."""
    tokenizer = network.engine.checkpoint.tokenizer
    marks = [AddedToken(mark, special=special, normalized=False) for mark in ("<think>", "</think>")]
    tokenizer.add_tokens(marks, special_tokens=special)
    written = tokenizer("<think>It is B.</think> A.", add_special_tokens=False)["input_ids"]
    assert (tokenizer.convert_tokens_to_ids("<think>") in written) is True
    generate = PrunedVLM.generate

    def writing(self, **arguments):
        output = generate(self, **arguments)
        prompt = output[:, : arguments["input_ids"].shape[1]]
        return torch.cat([prompt, torch.tensor([[*written, tokenizer.eos_token_id]])], dim=1)

    monkeypatch.setattr(PrunedVLM, "generate", writing)
    answer = asked(network)
    assert (answer.text, answer.raw_text) == ("A.", "<think>It is B.</think> A.")
    assert answer.summary()["raw_answer"] == answer.raw_text
