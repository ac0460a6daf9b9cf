# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The wrapper compared with the stock model."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import weakref

import pytest
import torch
from conftest import SIZES, RandomPruner
from recorded_vlm import RecordedVLM
from stock_oracle import (
    OTHER_POSITIONS,
    PATCHES,
    POSITIONS,
    consecutive_patches,
    masked_greedy,
    masked_logits,
)
from transformers import GenerationConfig, TextIteratorStreamer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from monai_medpruner.errors import NonFiniteAttentionError, PromptError, SettingsError
from monai_medpruner.networks import PrunedVLM
from monai_medpruner.networks.checkpoint import load_processors
from monai_medpruner.networks.families import family_of
from monai_medpruner.pruners import NucleusPruner

TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}
NUCLEUS = NucleusPruner(tau=0.5, temperature=0.5, contextual_ratio=0)
# an end-of-sequence token would end the comparison early
FULL_LENGTH = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False}


def is_visual(model, inputs):
    """Return the mask of the placeholders of visual tokens."""
    return inputs["input_ids"] == model.config.image_token_id


def kept_logits(logits, keep):
    """Return the rows of kept tokens of all prompts, concatenated."""
    return torch.cat([row[mask] for row, mask in zip(logits, keep, strict=True)])


def pruned_logits(vlm, inputs):
    """Return the logits of the pruned prompts without padding."""
    with torch.no_grad():
        logits = vlm(**inputs).logits
    return torch.cat([row[logits.shape[1] - n :] for row, n in zip(logits, vlm.record.keep.sum(1), strict=True)])


@pytest.mark.parametrize("pruner", [NUCLEUS, RandomPruner(contextual_ratio=0)], ids=["nucleus", "random"])
def test_logits_equal_masked_stock_model(model, batch, pruner):
    vlm = RecordedVLM(model, pruner)
    pruned = pruned_logits(vlm, batch)
    keep = vlm.record.keep
    visual = is_visual(model, batch)
    assert 0.2 < keep[visual].float().mean() < 0.8
    assert torch.equal(keep[~visual], batch["attention_mask"][~visual].bool())
    torch.testing.assert_close(pruned, kept_logits(masked_logits(model, batch, keep), keep), **TOLERANCE)


def test_generation_equals_masked_stock_model(model, batch):
    # no end-of-sequence token and no suppressed tokens, because the oracle has no such rules
    model.generation_config.eos_token_id = None
    vlm = RecordedVLM(model, NUCLEUS)
    details = vlm.generate(**batch, **FULL_LENGTH, return_dict_in_generate=True, output_logits=True)
    output = details.sequences
    length = batch["input_ids"].shape[1]
    assert torch.equal(output[:, :length], batch["input_ids"])
    new_ids = output[:, length:]
    assert min(len(row.unique()) for row in new_ids) >= 3
    keep = vlm.record.keep
    steps = masked_logits(model, batch, keep, new_ids)[:, length - 1 : -1]
    torch.testing.assert_close(torch.stack(details.logits, 1), steps, **TOLERANCE)
    assert torch.equal(new_ids, masked_greedy(model, batch, keep, 20))


def test_other_value_of_preserve_position_ids(model, batch):
    """Original positions for families that renumber, and the reverse, in forward and generate."""
    positions = OTHER_POSITIONS[POSITIONS[model.config.model_type]]
    vlm = RecordedVLM(model, NUCLEUS, preserve_position_ids=not family_of(model).preserves_position_ids)
    pruned = pruned_logits(vlm, batch)
    keep = vlm.record.keep
    expected = kept_logits(masked_logits(model, batch, keep, positions=positions), keep)
    torch.testing.assert_close(pruned, expected, **TOLERANCE)
    assert not torch.allclose(pruned, pruned_logits(RecordedVLM(model, NUCLEUS), batch), atol=1e-3)
    model.generation_config.eos_token_id = None
    output = vlm.generate(**batch, **FULL_LENGTH)
    assert torch.equal(output[:, -20:], masked_greedy(model, batch, keep, 20, positions))


def test_preserve_position_ids_defaults_to_the_family(model, batch):
    default = RecordedVLM(model, NUCLEUS)
    named = RecordedVLM(model, NUCLEUS, preserve_position_ids=default.family.preserves_position_ids)
    assert torch.equal(pruned_logits(default, batch), pruned_logits(named, batch))


def test_missing_token_types_are_added(model, batch):
    """A prompt from the tokenizer only gives the outputs of one from the processor."""
    vlm = RecordedVLM(model, NUCLEUS)
    expected = pruned_logits(vlm, batch)
    bare = {name: value for name, value in batch.items() if name not in vlm.family.token_inputs}
    assert torch.equal(pruned_logits(vlm, bare), expected)


@pytest.mark.parametrize("contextual_ratio", [0, 0.05])
def test_tau_one_equals_stock_model(model, batch, contextual_ratio):
    vlm = RecordedVLM(model, NucleusPruner(tau=1, contextual_ratio=contextual_ratio))
    with torch.no_grad():
        stock = model(**batch).logits
    keep = batch["attention_mask"].bool()
    torch.testing.assert_close(pruned_logits(vlm, batch), kept_logits(stock, keep), **TOLERANCE)
    assert torch.equal(vlm.record.keep, keep)
    assert torch.equal(vlm.generate(**batch, **FULL_LENGTH), model.generate(**batch, **FULL_LENGTH))


def test_no_pruner_is_the_stock_model(model, batch):
    vlm = RecordedVLM(model)
    with torch.no_grad():
        assert torch.equal(vlm(**batch).logits, model(**batch).logits)
    assert torch.equal(vlm.generate(**batch, **FULL_LENGTH), model.generate(**batch, **FULL_LENGTH))
    assert torch.equal(vlm.record.keep, batch["attention_mask"].bool())
    assert [len(prompt) for prompt in vlm.record.slices] == [3, 1]


@pytest.mark.parametrize("merge_space", ["projected", "encoder"])
def test_batch_equals_one_by_one(model, prompts, merge_space):
    vlm = RecordedVLM(model, NucleusPruner(tau=0.5, temperature=0.5, merge_space=merge_space))
    together = prompts(SIZES[:3], SIZES[3:])
    both = vlm.generate(**together, **FULL_LENGTH)
    record = vlm.record
    for row, (start, stop) in enumerate([(0, 3), (3, 4)]):
        mask = together["attention_mask"][row].bool()
        names = ("input_ids", "attention_mask", *vlm.family.token_inputs)
        alone = {name: together[name][row : row + 1, mask] for name in names}
        one = vlm.generate(**alone, **vlm.family.slice_inputs(together, start, stop), **FULL_LENGTH)
        assert torch.equal(one[0, -20:], both[row, -20:])
        assert torch.equal(vlm.record.keep[0], record.keep[row, mask])


@pytest.mark.parametrize("vision_batch_size", [1, 2])
def test_vision_batch_size_changes_nothing(model, batch, vision_batch_size):
    pruner = NucleusPruner(tau=0.5, temperature=0.5)
    whole, parts = RecordedVLM(model, pruner), RecordedVLM(model, pruner, vision_batch_size)
    torch.testing.assert_close(pruned_logits(parts, batch), pruned_logits(whole, batch), **TOLERANCE)
    assert torch.equal(parts.record.keep, whole.record.keep)


def test_record_of_merged_tokens(model, batch):
    vlm = RecordedVLM(model, NucleusPruner(tau=0.5, temperature=0.5, contextual_ratio=0.2))
    output = vlm(**batch)
    record = vlm.record
    assert output.logits.shape[1] == record.keep.sum(1).max()
    assert record.unpruned_tokens == is_visual(model, batch).sum()
    assert record.kept_tokens == record.keep[is_visual(model, batch)].sum() < record.unpruned_tokens
    for one in [one for prompt in record.slices for one in prompt]:
        rows, columns = one.grid
        assert one.importance.mean().item() == pytest.approx(1, abs=1e-5)
        assert (one.kept_tokens[:, 0] * columns + one.kept_tokens[:, 1]).tolist() == one.primary.nonzero()[
            :, 0
        ].tolist()
        assert (one.contextual_tokens < torch.tensor([rows, columns])).all()
        assert len(one.contextual_tokens) == max(int(0.2 * rows * columns), 1)
        assert one.keep[one.merged_into].all()
        assert torch.equal(one.merged_into == torch.arange(rows * columns), one.keep)
    assert set(record.seconds) == {"encode", "select", "prefill"}
    vlm.generate(**batch, max_new_tokens=2)
    assert set(vlm.record.seconds) == {"encode", "select", "prefill", "decode"}


def test_importance_is_the_eager_attention(model, prompts, monkeypatch):
    """Compared with the sum of the attention weights of an eager last block."""
    inputs = prompts([(64, 96)])
    vlm = RecordedVLM(model, NUCLEUS)
    vlm(**inputs)
    weights = []
    attention = vlm.family.scoring_attention
    modeling = sys.modules[type(attention).__module__]
    eager = modeling.eager_attention_forward

    def remember(module, *args, **kwargs):
        output = eager(module, *args, **kwargs)
        if module is attention:
            weights.append(output[1])
        return output

    monkeypatch.setattr(modeling, "eager_attention_forward", remember)
    model.config._attn_implementation = "eager"
    with torch.no_grad():
        vlm.family.encode(vlm.family.slice_inputs(inputs, 0, 1))
    one = vlm.record.slices[0][0]
    patches = PATCHES.get(model.config.model_type, consecutive_patches)(model, one.grid)
    # a class token is left out as query and as key
    every = patches.flatten().sort().values
    among_patches = weights[0][0].double()[:, every][:, :, every]
    among_patches /= among_patches.sum(-1, keepdim=True)
    received = torch.zeros(weights[0].shape[-1], dtype=torch.float64)
    received[every] = among_patches.mean(0).sum(0)
    expected = received[patches].mean(-1)
    torch.testing.assert_close(one.importance.double(), expected, atol=1e-5, rtol=1e-5)


def test_merging_before_the_projector(model, prompts):
    """Contextual tokens are projections of tokens merged before the projector; primary tokens are unchanged."""
    inputs = prompts([(128, 96)])
    projected = RecordedVLM(model, NucleusPruner(tau=0.5, temperature=0.5, contextual_ratio=0.1))
    before = RecordedVLM(model, NucleusPruner(tau=0.5, temperature=0.5, contextual_ratio=0.1, merge_space="encoder"))
    first, second = projected.encode(**inputs), before.encode(**inputs)
    record = second.records[0]
    assert torch.equal(first.records[0].merged_into, record.merged_into)
    images = before.family.slice_inputs(inputs, 0, 1)
    with torch.no_grad():
        raw = before.family.encode(images).encoder_tokens[0]
        places = record.keep.nonzero()[:, 0].tolist()
        merged = raw.clone()
        for target in record.contextual.nonzero()[:, 0].tolist():
            assigned = [j for j in range(len(raw)) if record.merged_into[j] == target and j != target]
            if assigned:
                merged[target] = raw[target] + raw[assigned].mean(0)
        expected = before.family.project(merged[places])
    torch.testing.assert_close(second.tokens[0], expected, **TOLERANCE)
    same = record.primary[places]
    torch.testing.assert_close(first.tokens[0][same], second.tokens[0][same], **TOLERANCE)
    assert not torch.allclose(first.tokens[0][~same], second.tokens[0][~same], atol=1e-3)


def test_encoded_slices_serve_several_questions(model, batch):
    vlm = RecordedVLM(model, NUCLEUS)
    expected = vlm.generate(**batch, **FULL_LENGTH)
    encoded = vlm.encode(**batch)
    text = {name: batch[name] for name in ("input_ids", "attention_mask", *vlm.family.token_inputs)}
    for _ in range(2):
        assert torch.equal(vlm.generate(encoded=encoded, **text, **FULL_LENGTH), expected)


@pytest.mark.parametrize("settings", [{"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}], ids=str)
def test_expanded_generation(model, batch, settings):
    """Beams and several sequences of unpruned prompts equal the stock model, one prompt at a time."""
    vlm = RecordedVLM(model, NucleusPruner(tau=1))
    arguments = {"max_new_tokens": 6, **settings}
    torch.manual_seed(0)
    pruned = vlm.generate(**batch, **arguments)
    torch.manual_seed(0)
    assert torch.equal(pruned, model.generate(**batch, **arguments))


def test_several_sequences_of_a_ragged_batch_equal_masked_stock_model(model, batch):
    """Each sequence gets all images of its prompt in order. Sampling from the top token makes all greedy."""
    vlm = RecordedVLM(model, NUCLEUS)
    model.generation_config.eos_token_id = None
    output = vlm.generate(**batch, max_new_tokens=6, do_sample=True, top_k=1, num_return_sequences=3)
    expected = masked_greedy(model, batch, vlm.record.keep, 6).repeat_interleave(3, 0)
    assert torch.equal(output[:, -6:], expected)


def test_beams_of_a_ragged_batch_equal_one_by_one(model, batch):
    """The visual tokens of each prompt are expanded with it, for any number of kept tokens."""
    vlm = RecordedVLM(model, NUCLEUS)
    arguments = {"max_new_tokens": 6, "min_new_tokens": 6, "num_beams": 3, "num_return_sequences": 2}
    both = vlm.generate(**batch, **arguments)
    assert len(both) == 4
    for row, (start, stop) in enumerate([(0, 3), (3, 4)]):
        mask = batch["attention_mask"][row].bool()
        text = {name: batch[name][row : row + 1, mask] for name in batch if name not in vlm.family.image_inputs}
        alone = vlm.generate(**text, **vlm.family.slice_inputs(batch, start, stop), **arguments)
        assert torch.equal(alone[:, -6:], both[2 * row : 2 * row + 2, -6:])


def test_follow_up_turn_with_the_cache(model, batch):
    """Equals the masked stock model on prompt, answer and new turn. Slices are not encoded again."""
    model.generation_config.eos_token_id = None
    vlm = RecordedVLM(model, NUCLEUS)
    first = vlm.generate(**batch, max_new_tokens=5, do_sample=False, return_dict_in_generate=True)
    keep = vlm.record.keep
    turn = batch["input_ids"][:, -6:]
    conversation = torch.cat([first.sequences, turn], 1)
    mask = torch.cat([batch["attention_mask"], torch.ones(2, 5 + 6, dtype=torch.long)], 1)
    second = vlm.generate(
        input_ids=conversation,
        attention_mask=mask,
        past_key_values=first.past_key_values,
        max_new_tokens=5,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    assert set(vlm.record.seconds) == {"prefill", "decode"}
    assert torch.equal(second.sequences[:, : conversation.shape[1]], conversation)
    assert torch.equal(vlm.record.keep, torch.cat([keep, mask[:, keep.shape[1] :].bool()], 1))
    new_ids = second.sequences[:, batch["input_ids"].shape[1] :]
    expected = masked_logits(model, batch, keep, new_ids)[:, -6:-1]
    torch.testing.assert_close(torch.stack(second.logits, 1), expected, **TOLERANCE)
    assert torch.equal(second.sequences[:, -5:], expected.argmax(-1))

    third = torch.cat([second.sequences, turn], 1)
    vlm.generate(input_ids=third, past_key_values=second.past_key_values, max_new_tokens=1)
    assert torch.equal(vlm.record.keep[:, : keep.shape[1]], keep)


def test_caches_of_other_prompts_are_refused(model, batch):
    vlm = RecordedVLM(model, NUCLEUS)
    output = vlm.generate(**batch, max_new_tokens=2, return_dict_in_generate=True)
    other = output.sequences.clone()
    other[0, -1] += 1
    with pytest.raises(PromptError, match="do not begin with the prompt and the answer"):
        vlm.generate(input_ids=other, past_key_values=output.past_key_values, max_new_tokens=1)
    with pytest.raises(PromptError, match="not a cache that"):
        RecordedVLM(model, NUCLEUS).generate(**batch, past_key_values=output.past_key_values, max_new_tokens=1)


@pytest.mark.parametrize("how", ["copied", "beams"])
def test_caches_that_no_turn_can_follow(model, batch, how):
    vlm = RecordedVLM(model, NUCLEUS)
    beams = {"num_beams": 2} if how == "beams" else {}
    output = vlm.generate(**batch, max_new_tokens=2, return_dict_in_generate=True, **beams)
    cache = copy.deepcopy(output.past_key_values) if how == "copied" else output.past_key_values
    with pytest.raises(PromptError, match=r"copied caches .* cannot be used"):
        vlm.generate(input_ids=output.sequences, past_key_values=cache, max_new_tokens=1)


def test_follow_up_turn_of_the_stock_model(model, batch):
    """Without a pruner, the stock model's cache is used, and the new turn needs no images."""
    vlm = RecordedVLM(model)
    first = model.generate(**batch, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    ones = torch.ones(len(first.sequences), 3, dtype=torch.long)
    turn = {
        "input_ids": first.sequences,
        "attention_mask": torch.cat([batch["attention_mask"], ones], 1),
        "max_new_tokens": 4,
        "do_sample": False,
    }
    other = copy.deepcopy(first.past_key_values)
    expected = model.generate(**turn, past_key_values=first.past_key_values)
    assert torch.equal(vlm.generate(**turn, past_key_values=other), expected)
    assert vlm.record.slices == [[], []]


def test_dictionary_output_has_the_unpruned_prompt(model, batch):
    output = RecordedVLM(model, NUCLEUS).generate(**batch, max_new_tokens=3, return_dict_in_generate=True)
    assert torch.equal(output.sequences[:, : batch["input_ids"].shape[1]], batch["input_ids"])


@pytest.mark.parametrize("form", ["argument", "config"])
def test_max_length_counts_the_unpruned_prompt(model, batch, form):
    length = batch["input_ids"].shape[1] + 4
    limits = (
        {"max_length": length} if form == "argument" else {"generation_config": GenerationConfig(max_length=length)}
    )
    vlm = RecordedVLM(model, NUCLEUS)
    assert vlm.generate(**batch, **limits, do_sample=False).shape[1] == length
    if form == "config":
        assert limits["generation_config"].max_length == length


def test_labels_follow_the_tokens(model, batch):
    vlm = RecordedVLM(model, NUCLEUS)
    labels = batch["input_ids"].masked_fill(is_visual(model, batch) | ~batch["attention_mask"].bool(), -100)
    with torch.no_grad():
        loss = vlm(**batch, labels=labels).loss
        logits = masked_logits(model, batch, vlm.record.keep)
    losses = []
    for row, mask, target in zip(logits, vlm.record.keep, labels, strict=True):
        losses.append(torch.nn.functional.cross_entropy(row[mask][:-1], target[mask][1:], reduction="none"))
        losses[-1] = losses[-1][target[mask][1:] != -100]
    torch.testing.assert_close(loss, torch.cat(losses).mean(), **TOLERANCE)


def snapshot(model):
    """Return all state that a call could change: hooks, attributes, configuration, registered attention."""
    modules = {
        name: (
            sorted(vars(module)),
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._backward_hooks),
            module.training,
            type(module),
            module.__dict__.get("forward"),
        )
        for name, module in model.named_modules()
    }
    return (
        modules,
        copy.deepcopy(model.config.to_dict()),
        sorted(ALL_ATTENTION_FUNCTIONS),
        model.config.to_json_string(),
    )


@pytest.mark.parametrize("fails", [False, True])
def test_model_is_not_changed(model, batch, monkeypatch, fails):
    vlm = RecordedVLM(model, NUCLEUS)
    before, implementation = snapshot(model), [one._attn_implementation for one in vlm.family.vision_configs]
    if fails:
        monkeypatch.setattr(type(vlm.family.scoring_attention), "forward", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            vlm(**batch)
    else:
        vlm(**batch)
        vlm.generate(**batch, max_new_tokens=2)
    assert snapshot(model) == before
    assert [one._attn_implementation for one in vlm.family.vision_configs] == implementation


def test_the_model_is_freed(model, batch):
    vlm = RecordedVLM(copy.deepcopy(model), NUCLEUS)
    vlm.generate(**batch, max_new_tokens=2)
    wrapper, inner = weakref.ref(vlm), weakref.ref(vlm.model)
    del vlm
    gc.collect()
    assert wrapper() is None
    assert inner() is None


def test_threads_do_not_mix(model, prompts):
    vlm = PrunedVLM(model, NUCLEUS)
    jobs = [prompts(SIZES[:count], seed=count) for count in (1, 2, 3, 4)]

    def answered(job):
        records = []
        output = vlm.generate(**job, max_new_tokens=4, on_record=records.append)
        (record,) = records
        return output, record.keep

    serial = [answered(job) for job in jobs]
    results = {}

    def work(index):
        for _ in range(3):
            results[index] = answered(jobs[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, (output, keep) in enumerate(serial):
        assert torch.equal(results[index][0], output)
        assert torch.equal(results[index][1], keep)


def test_record_with_a_streamer_thread(checkpoint, model, batch):
    """As in the documentation of transformers: generate runs in one thread, the answer is read in another."""
    _, tokenizer = load_processors(str(checkpoint))
    vlm, records = PrunedVLM(model, NUCLEUS), []
    one = {name: value[:1] for name, value in batch.items() if name not in vlm.family.image_inputs}
    one |= vlm.family.slice_inputs(batch, 0, 3)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    arguments = {**one, "max_new_tokens": 4, "streamer": streamer, "on_record": records.append}
    thread = threading.Thread(target=vlm.generate, kwargs=arguments)
    thread.start()
    "".join(streamer)
    thread.join()
    (record,) = records
    assert 0 < record.kept_tokens < record.unpruned_tokens
    assert set(record.seconds) == {"encode", "select", "prefill", "decode"}


def test_copies_are_independent(model, batch):
    vlm = RecordedVLM(model, NUCLEUS)
    expected = vlm(**batch).logits
    for other in (copy.deepcopy(vlm), pickle.loads(pickle.dumps(vlm))):
        assert other.family.model is other.model
        torch.testing.assert_close(other(**batch).logits, expected, **TOLERANCE)


def test_text_without_slices(model, batch):
    ids = batch["input_ids"][:, -5:]
    vlm = RecordedVLM(model, NUCLEUS)
    with torch.no_grad():
        assert torch.equal(vlm(input_ids=ids).logits, model(input_ids=ids).logits)
    assert vlm.record.keep.all()
    assert vlm.record.slices == [[], []]


def broken(model, batch, change):
    inputs = dict(batch)
    if change == "no ids":
        del inputs["input_ids"]
    elif change == "embeddings":
        inputs["inputs_embeds"] = torch.zeros(2, 3, 4)
    elif change == "videos":
        inputs["pixel_values_videos"] = inputs["pixel_values"]
    elif change == "mask":
        inputs["attention_mask"] = inputs["attention_mask"][:, None, None]
    elif change == "placeholders":
        inputs["input_ids"] = inputs["input_ids"].clone()
        inputs["input_ids"][0, -1] = model.config.image_token_id
    return inputs


@pytest.mark.parametrize("change", ["no ids", "embeddings", "videos", "mask", "placeholders"])
def test_inconsistent_inputs(model, batch, change):
    with pytest.raises(PromptError):
        RecordedVLM(model, NUCLEUS)(**broken(model, batch, change))


def test_vision_batch_size_must_be_positive(model, batch):
    with pytest.raises(SettingsError, match="vision_batch_size"):
        RecordedVLM(model, NUCLEUS, vision_batch_size=0)(**batch)


def test_attention_that_overflows(model, batch):
    vlm = RecordedVLM(model, NUCLEUS)
    with torch.no_grad():
        for weight in vlm.family.scoring_attention.parameters():
            weight.fill_(torch.inf)
    with pytest.raises(NonFiniteAttentionError, match="overflowed in float32"):
        vlm(**batch)
