# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The wrapper takes the model's place in code that was written for the model."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from conftest import SIZES
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from monai_medpruner.errors import PromptError, UnsupportedModelError
from monai_medpruner.networks import PrunedVLM
from monai_medpruner.networks.checkpoint import load_processors
from monai_medpruner.networks.families import family_of
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.testing import prompt_inputs, randomize_weights

EVERYTHING = NucleusPruner(tau=1.0, contextual_ratio=0)
HALF = NucleusPruner(tau=0.5, temperature=0.5, contextual_ratio=0)
ATTRIBUTES = [
    *("device", "dtype", "config", "generation_config", "main_input_name", "get_input_embeddings", "can_generate"),
    *("get_output_embeddings", "save_pretrained", "num_parameters", "resize_token_embeddings", "name_or_path"),
]


class AfterFive(StoppingCriteria):
    """Stops five tokens after a prompt of a known length, as published criteria do."""

    def __init__(self, length):
        self.length = length
        self.seen = []

    def __call__(self, input_ids, scores, **kwargs):
        self.seen.append(input_ids)
        return torch.full((len(input_ids),), input_ids.shape[1] - self.length >= 5)


class ByPlace(LogitsProcessor):
    """Forces a token that depends on the place after a prompt of a known length."""

    def __init__(self, length):
        self.length = length

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, -torch.inf)
        forced[:, 5 + (input_ids.shape[1] - self.length) % 3] = 0
        return forced


@pytest.fixture
def stock(checkpoint):
    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    randomize_weights(model)
    return model


@pytest.fixture
def make_prompts(checkpoint, stock):
    """Return a function: sizes of the slices of each volume -> the outputs of the model's processor."""
    image_processor, tokenizer = load_processors(str(checkpoint))
    return lambda *volumes: prompt_inputs(family_of(stock), image_processor, tokenizer, *volumes)


@pytest.fixture
def prompt(make_prompts):
    """One prompt about two slices."""
    return make_prompts(SIZES[:2])


@pytest.fixture
def two_prompts(make_prompts):
    """Two prompts of different lengths."""
    return make_prompts(SIZES[:3], SIZES[3:])


def functions(length):
    """Return the caller's functions that see the prompt, by name."""
    return {
        "stopping_criteria": lambda: {"stopping_criteria": StoppingCriteriaList([AfterFive(length)])},
        "logits_processor": lambda: {"logits_processor": LogitsProcessorList([ByPlace(length)])},
        "prefix": lambda: {"prefix_allowed_tokens_fn": lambda _, ids: [5] if len(ids) - length < 2 else [7, 8]},
        "all with beams": lambda: {
            "stopping_criteria": StoppingCriteriaList([AfterFive(length)]),
            "prefix_allowed_tokens_fn": lambda _, ids: [5, 6] if len(ids) - length < 2 else [7, 8],
            "num_beams": 2,
        },
    }


@pytest.mark.parametrize("name", list(functions(0)))
def test_callers_functions_see_the_callers_prompt(stock, prompt, name):
    """New tokens are forced or counted by their place after the prompt, so the stock model's are known."""
    inputs = prompt
    length = inputs["input_ids"].shape[1]
    options = {"max_new_tokens": 9, "min_new_tokens": 9, "do_sample": False}
    make = functions(length)[name]
    expected = stock.generate(**inputs, **options, **make())[:, length:]
    found = PrunedVLM(stock, HALF).generate(**inputs, **options, **make())
    assert torch.equal(found[:, :length], inputs["input_ids"])
    assert found.shape[1] - length == expected.shape[1]
    if name in ("logits_processor",):
        assert torch.equal(found[:, length:], expected)
    if name == "prefix":
        assert found[0, length : length + 2].tolist() == [5, 5]
        assert set(found[0, length + 2 :].tolist()) <= {7, 8}


def test_criterion_is_given_whole_sequences(stock, two_prompts):
    length = two_prompts["input_ids"].shape[1]
    criterion = AfterFive(length)
    output = PrunedVLM(stock, HALF).generate(
        **two_prompts,
        max_new_tokens=9,
        min_new_tokens=9,
        stopping_criteria=[criterion],
        num_return_sequences=2,
        do_sample=True,
    )
    for number, seen in enumerate(criterion.seen):
        assert torch.equal(seen, output[:, : length + number + 1])


def test_streamer_is_given_the_callers_prompt(stock, checkpoint, prompt):
    tokenizer = load_processors(checkpoint)[1]
    texts = []
    for network in (stock, PrunedVLM(stock, HALF)):
        streamer = TextIteratorStreamer(tokenizer)
        network.generate(**prompt, max_new_tokens=1, streamer=streamer)
        texts.append("".join(streamer))
    text = tokenizer.decode(prompt["input_ids"][0])
    assert all(one.startswith(text) for one in texts)


FEATURES = {
    "greedy": {},
    "sampling": {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9},
    "sequences": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "beam sampling": {"num_beams": 2, "do_sample": True},
    "repetition penalty": {"repetition_penalty": 1.5},
    "n-grams": {"no_repeat_ngram_size": 2},
    "bad words": {"bad_words_ids": [[5], [6, 7]]},
    "suppressed": {"suppress_tokens": [5, 6, 7]},
    "sequence bias": {"sequence_bias": [[[9], 20.0]]},
    "forced end": {"forced_eos_token_id": 9, "min_new_tokens": None},
    "other end": {"eos_token_id": [5, 6, 7, 8, 9, 10, 11], "min_new_tokens": None},
    "min_p": {"do_sample": True, "min_p": 0.05},
    "typical": {"do_sample": True, "typical_p": 0.8},
    "epsilon": {"do_sample": True, "epsilon_cutoff": 0.001},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "prompt lookup": {"prompt_lookup_num_tokens": 2},
    "renormalized": {"renormalize_logits": True, "do_sample": True},
    "decay": {"exponential_decay_length_penalty": (2, 1.5), "min_new_tokens": None},
}


def outcome(network, inputs, options):
    """Return the sequences, or the class of the error."""
    torch.manual_seed(0)
    try:
        return network.generate(**inputs, **options)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("feature", list(FEATURES))
def test_feature_equals_the_stock_model(stock, prompt, two_prompts, feature):
    """With every token kept, each feature of generate gives the stock model's sequences, or its error."""
    inputs = prompt if feature == "prompt lookup" else two_prompts
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, **FEATURES[feature]}
    expected = outcome(stock, inputs, options)
    found = outcome(PrunedVLM(stock, EVERYTHING), inputs, options)
    if isinstance(expected, type):
        assert found is expected
    else:
        assert torch.equal(found, expected)


def test_details_equal_the_stock_model(stock, two_prompts):
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True}
    options |= {"output_scores": True, "output_logits": True, "output_hidden_states": True}
    expected = stock.generate(**two_prompts, **options)
    found = PrunedVLM(stock, EVERYTHING).generate(**two_prompts, **options)
    assert torch.equal(found.sequences, expected.sequences)
    for name in ("scores", "logits"):
        torch.testing.assert_close(found[name], expected[name], atol=2e-5, rtol=1e-4)
    assert len(found.hidden_states) == len(expected.hidden_states)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attribute_is_the_models(stock, name):
    if not hasattr(stock, name):
        pytest.skip(f"{type(stock).__name__} has no {name}")
    found, expected = getattr(PrunedVLM(stock, HALF), name), getattr(stock, name)
    assert found == expected or found is expected


def test_a_value_that_is_none_turns_off_that_of_the_model(stock, prompt, monkeypatch):
    monkeypatch.setattr(stock, "generation_config", GenerationConfig(pad_token_id=0, eos_token_id=None))
    options = {"max_new_tokens": 5, "do_sample": False}
    expected = stock.generate(**prompt, **options)
    first = int(expected[0, prompt["input_ids"].shape[1]])
    monkeypatch.setattr(stock, "generation_config", GenerationConfig(pad_token_id=0, suppress_tokens=[first]))
    vlm = PrunedVLM(stock, EVERYTHING)
    assert torch.equal(vlm.generate(**prompt, **options, suppress_tokens=None), expected)
    assert not torch.equal(vlm.generate(**prompt, **options), expected)


def test_generation_config_is_set_on_the_model(stock, prompt):
    vlm = PrunedVLM(stock, HALF)
    vlm.generation_config = GenerationConfig(max_new_tokens=3, min_new_tokens=3)
    assert stock.generation_config.max_new_tokens == 3
    assert vlm.generate(**prompt).shape[1] == prompt["input_ids"].shape[1] + 3


def test_missing_attribute(stock):
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = PrunedVLM(stock, HALF).no_such_thing


def test_copies_work(stock, prompt):
    vlm = PrunedVLM(stock, HALF)
    options = {"max_new_tokens": 3, "do_sample": False}
    expected = vlm.generate(**prompt, **options)
    for other in (copy.copy(vlm), copy.deepcopy(vlm), pickle.loads(pickle.dumps(vlm))):
        assert torch.equal(other.generate(**prompt, **options), expected)


def test_saved_model_is_the_stock_model(stock, tmp_path):
    PrunedVLM(stock, HALF).save_pretrained(tmp_path)
    saved = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert all(torch.equal(one, saved.state_dict()[name]) for name, one in stock.state_dict().items())


def test_prompt_by_position(stock, prompt):
    vlm = PrunedVLM(stock, HALF)
    ids, rest = prompt["input_ids"], {name: one for name, one in prompt.items() if name != "input_ids"}
    expected = vlm.generate(**prompt, max_new_tokens=4, do_sample=False)
    config = GenerationConfig(max_new_tokens=4, do_sample=False)
    assert torch.equal(vlm.generate(ids, **rest, max_new_tokens=4, do_sample=False), expected)
    assert torch.equal(vlm.generate(inputs=ids, **rest, max_new_tokens=4, do_sample=False), expected)
    assert torch.equal(vlm.generate(ids, config, **rest), expected)
    with torch.no_grad():
        assert torch.equal(vlm(ids, **rest).logits, vlm(**prompt).logits)
    with pytest.raises(TypeError, match="input_ids was given twice"):
        vlm.generate(ids, **prompt)


def test_second_model_is_refused(stock, prompt):
    with pytest.raises(PromptError, match="assistant_model is not supported with pruning"):
        PrunedVLM(stock, HALF).generate(**prompt, assistant_model=stock)


def test_missing_gradients_of_the_vision_part_are_said(stock, prompt):
    vlm = PrunedVLM(stock, HALF)
    with pytest.warns(UserWarning, match="vision encoder and the projector are not trained"):
        vlm(**prompt, labels=prompt["input_ids"]).loss.backward()
    assert all(one.grad is not None for one in stock.get_decoder().parameters())
    language = {*stock.get_decoder().parameters(), *stock.get_output_embeddings().parameters()}
    for one in stock.parameters():
        one.requires_grad_(one in language)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        vlm(**prompt, labels=prompt["input_ids"]).loss.backward()


def test_no_warning_without_gradients(stock, prompt):
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", UserWarning)
        PrunedVLM(stock, HALF)(**prompt)


class Adapted(torch.nn.Module):
    """What PEFT's wrapper looks like from outside."""

    def __init__(self, model):
        super().__init__()
        self.base_model = model
        self.config = model.config

    def get_base_model(self):
        return self.base_model


def test_adapter_is_refused_by_name(stock):
    with pytest.raises(UnsupportedModelError, match=r"Adapted wraps the model \(PEFT\): pass its get_base_model"):
        PrunedVLM(Adapted(stock), HALF)
    assert PrunedVLM(Adapted(stock).get_base_model(), HALF).model is stock


def test_offloaded_weights_are_refused_by_name(stock):
    stock.get_decoder().to("meta")
    with pytest.raises(UnsupportedModelError, match="offloaded"):
        PrunedVLM(stock, HALF)


def test_compiled_wrapper_gives_the_same(stock, prompt):
    vlm = PrunedVLM(stock, HALF)
    compiled = torch.compile(vlm)
    with torch.no_grad():
        assert torch.equal(compiled(**prompt).logits, vlm(**prompt).logits)
    options = {"max_new_tokens": 3, "do_sample": False}
    assert torch.equal(compiled.generate(**prompt, **options), vlm.generate(**prompt, **options))
