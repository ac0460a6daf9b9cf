# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Prompts for vLLM hold the tokens and positions of the stock route; none of this needs vLLM."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_medpruner.engines import Conversation, VolumePrompt
from monai_medpruner.engines.vllm import pruned_request
from monai_medpruner.engines.vllm.prompt_embeddings import prompt_embeddings
from monai_medpruner.errors import CheckpointError, OutputFolderError, SettingsError
from monai_medpruner.networks import Checkpoint, PrunedVLM, TransformersEncoder
from monai_medpruner.networks.export_language_model import export_language_model
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.testing import randomize_weights, save_tiny_checkpoint

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3", "video_llama_3"]
MROPE = FAMILIES[:3]
CONVERSATIONS = [
    Conversation(VolumePrompt(), ("Is there a lesion?",)),
    Conversation(
        VolumePrompt("Read the slices.", before_slice="", after_slice="({number})"), ("Where?", "Left.", "Sure?")
    ),
]


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request, tmp_path_factory):
    checkpoint = Checkpoint(str(save_tiny_checkpoint(request.param, tmp_path_factory.mktemp(request.param))))
    randomize_weights(checkpoint.model)
    return checkpoint


def encoded(checkpoint, preserve=None, seed=0):
    volume = MetaTensor(torch.rand(1, 64, 96, 5, generator=torch.Generator().manual_seed(seed)))
    encoder = TransformersEncoder(checkpoint, NucleusPruner(tau=0.5, temperature=0.5), preserve_position_ids=preserve)
    return encoder.encode(volume)


def stock_prompt(checkpoint, study, conversation):
    """The prompt that the transformers engine runs."""
    from monai_medpruner.engines.conversation import conversation_text

    indices = study.record.slice_indices
    text = conversation_text(conversation, checkpoint.tokenizer, checkpoint.family, study.grids, indices)
    inputs = dict(checkpoint.tokenizer(text, add_special_tokens=False, return_tensors="pt"))
    model = PrunedVLM(checkpoint.model, preserve_position_ids=study.preserve_position_ids)
    return model.pruned_prompt(study.slices, input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])


def positions(request):
    """Rotary positions as an engine lays them out: a loop over tokens, ``(3, L)``."""
    found, start, slices = [], 0, iter(zip(request.positions, request.extents, strict=True))
    for token in request.ids:
        if token == request.image_token_id:
            own, extent = next(slices)
            found += [[start + int(axis) for axis in one] for one in own]
            start += extent
        else:
            found.append([start] * 3)
            start += 1
    return torch.tensor(found).T, start


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=["question", "turns"])
@pytest.mark.parametrize("preserve", [None, False])
def test_same_tokens_and_positions(loaded, preserve, conversation):
    study = encoded(loaded, preserve)
    request = pruned_request(study, conversation, loaded)
    expected = stock_prompt(loaded, study, conversation)
    assert request.full_ids == expected["input_ids"][0].tolist()
    assert request.length == len(request.full_ids)
    assert list(request.ids).count(request.image_token_id) == len(study.tokens)
    axes = expected["position_ids"]
    laid_out, following = positions(request)
    assert torch.equal(laid_out, axes[1:4, 0] if axes.ndim == 3 else axes.expand(3, -1))
    assert following == int(laid_out.max()) + 1
    kept_order = loaded.model.config.model_type in MROPE and preserve is None
    # a whole slice takes as many positions as it has rows or columns, not as it has kept tokens
    assert (following != request.length) == kept_order
    for rows, tokens, *others in zip(request.rows, study.tokens, *study.deepstack_features, strict=True):
        assert torch.equal(rows, torch.cat([tokens, *others], -1))


def test_needs_no_language_model(loaded):
    """A checkpoint without the layers of its language model writes the same prompt."""
    study = encoded(loaded)
    vision = Checkpoint(loaded.path_or_id, parts="vision")
    request, own = pruned_request(study, CONVERSATIONS[0], vision), pruned_request(study, CONVERSATIONS[0], loaded)
    assert request.ids == own.ids
    assert all(torch.equal(one, other) for one, other in zip(request.positions, own.positions, strict=True))


def test_positions_that_vllm_has_no_way_for(loaded):
    if loaded.model.config.model_type in MROPE:
        assert pruned_request(encoded(loaded, True), CONVERSATIONS[0], loaded).length
    else:
        with pytest.raises(SettingsError, match="vLLM counts the positions"):
            pruned_request(encoded(loaded, True), CONVERSATIONS[0], loaded)


def test_slice_names(loaded):
    """The same for the same slice, another for another row, place or extent."""
    study = encoded(loaded)
    request = pruned_request(study, CONVERSATIONS[0], loaded)
    names = request.slice_names()
    assert names == pruned_request(encoded(loaded), CONVERSATIONS[1], loaded).slice_names()
    assert len(set(names)) == len(names)
    assert not set(names) & set(pruned_request(encoded(loaded, seed=1), CONVERSATIONS[0], loaded).slice_names())
    request.rows[0][0, 0] += 1
    request.positions[1][0, 0] += 1
    changed = request.slice_names()
    assert [one == other for one, other in zip(names, changed, strict=True)][:3] == [False, False, True]


def test_fields_of_all_slices(loaded):
    request = pruned_request(encoded(loaded), CONVERSATIONS[0], loaded)
    fields = request.image_fields()
    total = sum(request.counts)
    assert fields["image_embeds"].shape[0] == total
    assert fields["kept_positions"].shape == (3 * total,)
    assert np.array_equal(fields["kept_count"].numpy(), request.counts)
    assert len(fields["kept_extent"]) == len(fields["kept_written"]) == len(request.counts)


def test_prompt_embeddings(tmp_path):
    """Rows of the exported table, and those of the kept tokens, equal to what the stock model makes of the prompt."""
    checkpoint = Checkpoint(str(save_tiny_checkpoint("video_llama_3", tmp_path / "model")))
    export_language_model(str(tmp_path / "model"), tmp_path / "text")
    study = encoded(checkpoint)
    request = pruned_request(study, CONVERSATIONS[0], checkpoint)
    ids = torch.tensor(request.full_ids)
    expected = checkpoint.model.get_input_embeddings()(ids).detach().clone()
    expected[ids == request.image_token_id] = torch.cat(list(study.tokens))
    assert torch.equal(prompt_embeddings(request, str(tmp_path / "text")), expected)
    with pytest.raises(CheckpointError, match="export_language_model"):
        prompt_embeddings(request, str(tmp_path))


def test_exported_language_model(tmp_path):
    """The same logits as the language model within the checkpoint."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = Checkpoint(str(save_tiny_checkpoint("video_llama_3", tmp_path / "model")))
    export_language_model(str(tmp_path / "model"), tmp_path / "text")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "text")
    ids = checkpoint.tokenizer("Is there a lesion?", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(exported(ids).logits, checkpoint.model(input_ids=ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "text").chat_template == checkpoint.tokenizer.chat_template
    with pytest.raises(OutputFolderError, match="not an empty folder"):
        export_language_model(str(tmp_path / "model"), tmp_path / "text")
    save_tiny_checkpoint("gemma3", tmp_path / "other")
    with pytest.raises(CheckpointError, match="only the language model of video_llama_3"):
        export_language_model(str(tmp_path / "other"), tmp_path / "text2")
