# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Features specific to Gemma 3 and MedGemma: pooling cells, image blocks, sliding windows, the prompt template."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import SIZES
from PIL import Image
from recorded_vlm import RecordedVLM
from stock_oracle import block_masks, masked_greedy
from transformers import Gemma3ForConditionalGeneration, Gemma3Processor

from monai_medpruner.engines import Conversation, VolumePrompt, VolumeQA
from monai_medpruner.errors import PromptError
from monai_medpruner.networks.families import Gemma3Family
from monai_medpruner.networks.slice_images import slice_images
from monai_medpruner.pruners import Keys, NucleusPruner, ReceivedAttention
from monai_medpruner.testing import TINY_MODELS, save_tiny_checkpoint

TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}
NUCLEUS = NucleusPruner(tau=0.5, temperature=0.5, contextual_ratio=0)
MEDGEMMA = VolumePrompt(
    instruction="You are a radiologist. Here are the slices of a CT volume.",
    before_slice="",
    after_slice="SLICE {number}",
    question="\n\n{question}",
)
# as in the template of the released models, texts are stripped and the assistant is called model
STRIPPING = (
    "{% for message in messages %}<|im_start|>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<start_of_image>{% else %}{{ part.text | trim }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The checkpoint of this family only."""
    return save_tiny_checkpoint("gemma3", tmp_path_factory.mktemp("gemma3"))


@pytest.fixture
def network(checkpoint):
    return VolumeQA.from_pretrained(str(checkpoint), NUCLEUS, prompt=MEDGEMMA, max_new_tokens=4)


def volume(depth=3):
    return torch.rand(1, 64, 96, depth, generator=torch.Generator().manual_seed(depth))


@dataclass(frozen=True)
class SpyPruner(NucleusPruner):
    """Stores its inputs."""

    seen = []  # noqa: RUF012 - no field

    def select(self, score, slices):
        self.seen.append(slices)
        return super().select(score, slices)


# --- pooling cells


def pooled(model, patches):
    """Pool the patches of one slice as the model does: ``(M, C)`` -> ``(N, C)``."""
    projector = model.model.multi_modal_projector
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    return projector.avg_pool(patches.T.reshape(1, -1, side, side))[0].flatten(1).T


@pytest.mark.parametrize("merge_space", ["projected", "encoder"])
def test_pruner_gets_the_pooling_cells(model, prompts, merge_space):
    """Importance, keys and tokens equal the model's own pooling; a cell is not 16 consecutive patches."""
    SpyPruner.seen.clear()
    inputs = prompts([(64, 96), (128, 64)])
    vlm = RecordedVLM(model, SpyPruner(tau=0.5, temperature=0.5, merge_space=merge_space))
    vlm.encode(**inputs)
    (seen,) = SpyPruner.seen
    vision = model.model.vision_tower
    layer = vision.encoder.layers[-1]
    arguments = []
    handle = layer.register_forward_pre_hook(lambda _, args: arguments.append(args[0]))
    with torch.no_grad():
        last = vision(pixel_values=inputs["pixel_values"]).last_hidden_state
        handle.remove()
        attention = layer.self_attn
        hidden = layer.layer_norm1(arguments[0])
        query, key = attention.q_proj(hidden).double(), attention.k_proj(hidden).double()
    assert seen.patches_per_token == 16
    for index in range(2):
        queries, keys = (part[index].reshape(144, 2, 16) for part in (query, key))
        received = torch.zeros(144, 1, dtype=torch.float64)
        for head in range(2):
            for row in range(144):
                received[:, 0] += torch.softmax(keys[:, head] @ queries[row, head] / 4, 0) / 2
        expected = pooled(model, received)[:, 0]
        in_a_row = received.reshape(9, 16).mean(1)
        assert (expected - in_a_row).abs().max() > 1e-3
        torch.testing.assert_close(seen.signal(ReceivedAttention())[index].double(), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            seen.signal(Keys())[index].double(), pooled(model, keys.mean(1)), atol=1e-5, rtol=1e-5
        )
        tokens = pooled(model, last[index])
        if merge_space == "projected":
            projector = model.model.multi_modal_projector
            tokens = projector.mm_soft_emb_norm(tokens) @ projector.mm_input_projection_weight
        torch.testing.assert_close(seen.tokens[index], tokens, **TOLERANCE)


def test_attended_cell_is_kept(model):
    """If the patches of one cell get all the attention, only its token is selected."""
    family = Gemma3Family(model)
    received = torch.zeros(12, 12)
    received[4:8, 8:12] = 9.0
    importance = family.group_patches(received.flatten(), (3, 3)).mean(-1)
    assert importance.reshape(3, 3).tolist() == [[0, 0, 0], [0, 0, 9], [0, 0, 0]]


def test_tiny_tokens_are_not_zero(checkpoint):
    """The projection weight is initialized to zero, which would make all images equal."""
    network = VolumeQA.from_pretrained(str(checkpoint))
    tokens = network(volume()[None])
    assert (tokens.abs() > 1e-3).float().mean() > 0.5
    assert not torch.allclose(tokens[..., :9], tokens[..., 9:18], atol=1e-3)


# --- image blocks


def test_slice_is_one_attention_block(model, prompts):
    """The first token of a slice attends to its last; earlier tokens and tokens of other slices do not."""
    inputs = prompts(SIZES[:2])
    vlm = RecordedVLM(model, NUCLEUS)
    encoded = vlm.encode(**inputs)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")}

    def layers(encoded):
        with torch.no_grad():
            return vlm(encoded=encoded, **text, output_hidden_states=True).hidden_states

    # at the first layer's output, which depends only on what a token attends to directly
    before = layers(encoded)[1][0]
    ids = inputs["input_ids"][0][vlm.record.keep[0]]
    visual = (ids == model.config.image_token_id).nonzero()[:, 0].tolist()
    first, second = visual[: len(encoded.tokens[0])], visual[len(encoded.tokens[0]) :]
    assert len(first) > 1
    assert len(second) > 1
    encoded.tokens[1] = encoded.tokens[1].clone()
    encoded.tokens[1][-1] += 1
    changed = ((layers(encoded)[1][0] - before).abs() > 1e-6).any(-1).nonzero()[:, 0].tolist()
    # the sliding window is longer than the slice: tokens before the slice's first token do not change
    assert set(second) <= set(changed)
    assert min(changed) == second[0]


@pytest.mark.parametrize("given", [True, False])
def test_token_types_are_pruned_with_the_ids(model, prompts, given, monkeypatch):
    inputs = prompts(SIZES[:3], SIZES[3:])
    if not given:
        del inputs["token_type_ids"]
    calls = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **named: calls.append(named) or forward(**named))
    vlm = RecordedVLM(model, NUCLEUS)
    vlm(**inputs)
    (sent,) = calls
    assert sent["token_type_ids"].shape == sent["input_ids"].shape
    assert torch.equal(sent["token_type_ids"], (sent["input_ids"] == model.config.image_token_id).long())
    assert sent["token_type_ids"].sum() == vlm.record.kept_tokens


# --- sliding windows and the cache


def test_sliding_layers_count_kept_tokens(checkpoint):
    """With a single sliding layer, a token attends to the last 8 kept tokens, regardless of dropped ones."""
    config = TINY_MODELS["gemma3"].config(300, {"image_token_id": 7, "boi_token_id": 8, "eoi_token_id": 9})
    config.text_config.num_hidden_layers = 1
    config.text_config.layer_types = ["sliding_attention"]
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(config).eval()
    TINY_MODELS["gemma3"].initialize(model)
    ids = torch.tensor([[20, 21, 22, 8, *[7] * 9, 9, 23, 24]])
    pixels = torch.randn(1, 3, 168, 168, generator=torch.Generator().manual_seed(1))
    vlm = RecordedVLM(model, NUCLEUS)
    encoded = vlm.encode(pixel_values=pixels)
    places = [*range(4), *(4 + encoded.keep[0].nonzero()[:, 0]).tolist(), 13, 14, 15]
    assert 10 <= len(places) < 16

    def last(changed):
        other = ids.clone()
        other[0, changed] += 100
        with torch.no_grad():
            return vlm(encoded=encoded, input_ids=other).logits[0, -1]

    with torch.no_grad():
        unchanged = vlm(encoded=encoded, input_ids=ids).logits[0, -1]
    for distance, place in enumerate(reversed(places)):
        if 0 < distance and ids[0, place] not in (7,):
            assert torch.equal(last(place), unchanged) == (distance >= 8), distance


def test_a_follow_up_turn_with_the_cache(model, prompts):
    """Prefill by the wrapper, then the stock model with the cache, equals the masked stock model without a cache."""
    inputs = prompts(SIZES[:3])
    assert inputs["input_ids"].shape[1] > 3 * model.config.text_config.sliding_window
    vlm = RecordedVLM(model, NUCLEUS)
    with torch.no_grad():
        output = vlm(**inputs, use_cache=True)
        keep = vlm.record.keep
        turn = inputs["input_ids"][:, -20:]
        went_on = model(input_ids=turn, past_key_values=output.past_key_values).logits
        full = torch.cat([inputs["input_ids"], turn], 1)
        seen = torch.cat([keep, torch.ones_like(turn, dtype=torch.bool)], 1)
        expected = model(
            input_ids=full,
            attention_mask=block_masks(model, full, seen),
            position_ids=(seen.cumsum(1) - 1).clamp(min=0),
            pixel_values=inputs["pixel_values"],
            use_cache=False,
        ).logits
    torch.testing.assert_close(went_on, expected[:, -20:], **TOLERANCE)


def test_generation_without_a_cache(model, prompts):
    """Every step processes the whole pruned prompt again, with its token types."""
    inputs = prompts(SIZES[:2])
    vlm = RecordedVLM(model, NUCLEUS)
    model.generation_config.eos_token_id = None
    output = vlm.generate(**inputs, max_new_tokens=5, do_sample=False, use_cache=False)
    assert torch.equal(output[:, -5:], masked_greedy(model, inputs, vlm.record.keep, 5))


# --- the prompt and the stock processor


def test_medgemmas_prompt(network):
    study = network.encode(volume(10))
    study = study.of_slices([3, 8])
    image = "\n\n<start_of_image>" + "<image_soft_token>" * 9 + "<end_of_image>\n\n"
    conversation = Conversation.about(MEDGEMMA, "Is there an effusion?")
    assert network.engine.prompt_text(study, conversation) == (
        "<|im_start|>user\nYou are a radiologist. Here are the slices of a CT volume."
        f"{image}SLICE 4{image}SLICE 9\n\nIs there an effusion?<|im_end|>\n<|im_start|>assistant\n"
    )


def stock_inputs(network, one, question, tokens=9):
    """Return the stock processor's outputs for the same volume and question."""
    content = [{"type": "text", "text": MEDGEMMA.instruction}]
    for number, image in enumerate(slice_images(one), 1):
        content += [{"type": "image", "image": image}, {"type": "text", "text": f"SLICE {number}"}]
    content.append({"type": "text", "text": f"\n\n{question}"})
    processor = Gemma3Processor(
        network.engine.checkpoint.image_processor,
        network.engine.checkpoint.tokenizer,
        chat_template=network.engine.checkpoint.tokenizer.chat_template,
        image_seq_length=tokens,
    )
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def language_inputs(model, call):
    """Return the embeddings that the language model got during a call, one after another."""
    seen = []
    handle = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    try:
        call()
    finally:
        handle.remove()
    return torch.cat([one["inputs_embeds"] for one in seen], dim=1)


@pytest.mark.parametrize("template", [None, STRIPPING], ids=["tiny", "stripping"])
@pytest.mark.parametrize("pruner", [None, NUCLEUS], ids=["none", "nucleus"])
def test_the_language_model_gets_the_stock_prompt_minus_the_pruned_tokens(checkpoint, template, pruner, monkeypatch):
    network = VolumeQA.from_pretrained(str(checkpoint), pruner, prompt=MEDGEMMA, max_new_tokens=2)
    model, tokenizer = network.engine.checkpoint.model, network.engine.checkpoint.tokenizer
    tokenizer.chat_template = template or tokenizer.chat_template
    stock = stock_inputs(network, volume(), "Is there an effusion?")
    assert stock["token_type_ids"].sum() == 27
    sent = []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **named: sent.append(dict(named)) or generate(**named))
    answered = []
    ours = language_inputs(model, lambda: answered.extend(network(volume()[None], [["Is there an effusion?"]])))
    with torch.no_grad():
        theirs = language_inputs(model, lambda: model(**stock))
    keep = torch.ones(stock["input_ids"].shape[1], dtype=torch.bool)
    visual = stock["input_ids"][0] == model.config.image_token_id
    keep[visual] = torch.cat([one.keep for one in answered[0].record.slices])
    assert keep.all() == (pruner is None)
    for name in ("input_ids", "token_type_ids"):
        assert torch.equal(sent[0][name], stock[name][:, keep])
    # the prompt runs in two parts, up to the last visual token and from there, and then each new token
    torch.testing.assert_close(ours[:, : int(keep.sum())], theirs[:, keep], **TOLERANCE)


def test_pan_and_scan_is_refused(network):
    """Crops are not slices, so the prompt has no placeholders for them."""
    processor = network.engine.checkpoint.image_processor
    processor.do_pan_and_scan = True
    processor.pan_and_scan_min_crop_size, processor.pan_and_scan_max_num_crops = 16, 4
    processor.pan_and_scan_min_ratio_to_activate = 1.2
    assert len(processor(images=[Image.fromarray(np.zeros((64, 96, 3), np.uint8))])["pixel_values"]) == 3
    with pytest.raises(PromptError, match="3 images for 9 slices"):
        network(volume()[None], [["a?"]])
