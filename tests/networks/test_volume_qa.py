# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Answers about volumes."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from monai.data import MetaTensor
from tokenizers import AddedToken

from monai_medpruner.data import collate_volumes
from monai_medpruner.engines import Conversation, TransformersEngine, VolumePrompt, VolumeQA
from monai_medpruner.errors import (
    IntensityUnitsError,
    PromptError,
    QuestionError,
    SettingsError,
    VolumeShapeError,
)
from monai_medpruner.networks import Checkpoint, ModelFamily, PrunedVLM, TransformersEncoder
from monai_medpruner.networks import checkpoint as loading
from monai_medpruner.networks import transformers_encoder as encoding
from monai_medpruner.networks.slice_images import slice_images
from monai_medpruner.pruners import NucleusPruner

PRUNER = NucleusPruner(tau=0.5, temperature=0.5)


@pytest.fixture(scope="module")
def network(checkpoint):
    return VolumeQA.from_pretrained(str(checkpoint), PRUNER, max_new_tokens=6)


def model_of(network):
    return network.engine.checkpoint.model


def prompt_text(network, study, question):
    return network.engine.prompt_text(study, Conversation.about(network.prompt, question))


def volume(depth=5, channels=1, seed=0, **meta):
    voxels = torch.rand(channels, 64, 96, depth, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(voxels, meta=meta)


def test_nothing_is_loaded_before_the_first_use(checkpoint, monkeypatch):
    network = VolumeQA.from_pretrained(str(checkpoint), PRUNER)
    assert not list(network.parameters())
    network(volume()[None])
    # encoder and engine share one model
    assert sum(one.numel() for one in network.parameters()) == sum(
        one.numel() for one in model_of(network).parameters()
    )
    monkeypatch.setattr(loading, "load_processors", lambda *_, **__: pytest.fail("loaded twice"))
    network(volume()[None], [["a?"]])


def test_answers_keep_the_nesting(network):
    answers = network(torch.stack([volume(seed=1), volume(seed=2)]), [["a?", "b?", "a?"], ["c?"]])
    texts = [one.texts for one in answers]
    assert [len(one) for one in texts] == [3, 1]
    assert all(isinstance(text, str) for one in texts for text in one)
    assert texts[0][0] == texts[0][2]
    assert network(torch.stack([volume(seed=2)]), [["c?"]])[0].texts == texts[1]
    assert str(answers[0].answers[0]) == texts[0][0]


def test_answer_is_that_of_the_wrapped_model(network):
    """Compared with a prompt written by hand and passed to the wrapper."""
    one = volume(depth=3)
    (answered,) = network(one[None], [["Is it?"]])
    checkpoint = network.encoder.checkpoint
    tokenizer, processor = checkpoint.tokenizer, checkpoint.image_processor
    pixels = processor(images=slice_images(one), return_tensors="pt")
    vlm, records = PrunedVLM(checkpoint.model, PRUNER), []
    inputs = {name: pixels[name] for name in vlm.family.image_inputs}
    text = tokenizer(prompt_text(network, network.encode(one), "Is it?"), return_tensors="pt")
    output = vlm.generate(**text, **inputs, max_new_tokens=6, do_sample=False, on_record=records.append)
    new_tokens = output[0, text["input_ids"].shape[1] :]
    (answer,) = answered.answers
    assert tokenizer.decode(new_tokens, skip_special_tokens=True).strip() == answer.text
    assert answer.prompt_tokens == records[0].keep.sum()
    assert answer.visual_tokens == records[0].kept_tokens == sum(answered.record.kept_tokens)
    assert answer.new_tokens == len(new_tokens)


def test_a_volume_is_encoded_once(network, monkeypatch):
    calls = []
    encode = encoding.encode_and_prune_each
    monkeypatch.setattr(
        encoding, "encode_and_prune_each", lambda *args, **more: calls.append(1) or encode(*args, **more)
    )
    (study,) = network(volume()[None], [["a?", "b?", "c?"]])
    assert len(calls) == 1
    assert set(study.record.seconds) == {"encode", "select"}
    assert study.record.seconds["encode"] > 0
    assert all(set(answer.seconds) == {"prefill", "decode"} for answer in study.answers)


def test_prompt_has_the_original_slice_numbers(network):
    study = network.encode(volume(depth=3, kept_indices=[4, 7, 30], source_depth=40))
    text = prompt_text(network, study, "Is it?")
    assert [f"Slice {number}:" in text for number in (5, 8, 31)] == [True] * 3
    assert text.count("Slice ") == 3
    record = study.record
    assert record.slice_indices == (4, 7, 30)
    assert record.total_slices == 40
    assert record.unpruned_tokens == 40 * record.slices[0].keep.numel()
    assert record.kept_tokens == [int(one.keep.sum()) for one in record.slices]


def test_padded_batch_equals_one_by_one(network):
    """Volumes of different depths in one batch: the padding has no effect."""
    deep = {"image": volume(depth=5, seed=1, kept_indices=[0, 1, 2, 3, 9]), "question": ["a?"]}
    flat = {"image": volume(depth=2, seed=2, kept_indices=[6, 8]), "question": ["b?", "c?"]}
    batch = collate_volumes([deep, flat])
    together = network(batch["image"], batch["question"])
    assert [study.record.slice_indices for study in together] == [(0, 1, 2, 3, 9), (6, 8)]
    for index, one in enumerate((deep, flat)):
        (alone,) = network(one["image"][None], [one["question"]])
        assert alone.texts == together[index].texts
        assert alone.record.kept_tokens == together[index].record.kept_tokens


@pytest.mark.parametrize("channels", [1, 3])
def test_tokens_without_a_question(network, channels):
    volumes = torch.stack([volume(channels=channels, seed=3), volume(channels=channels, seed=4)])
    tokens = network(volumes)
    counts = [sum(network.encode(one).record.kept_tokens) for one in volumes]
    assert tokens.shape == (2, model_of(network).config.get_text_config().hidden_size, max(counts))
    assert tokens.dtype == torch.float32
    for row, count in zip(tokens, counts, strict=True):
        assert (row[:, :count].abs().sum(0) > 0).all()
        assert (row[:, count:] == 0).all()


def test_channels_become_colors():
    one = torch.stack([torch.full((4, 5, 2), value) for value in (0.0, 0.5, 1.0)])
    images = slice_images(one)
    assert [image.size for image in images] == [(5, 4)] * 2
    assert images[0].getpixel((0, 0)) == (0, 128, 255)
    assert slice_images(one[1:2])[1].getpixel((4, 3)) == (128, 128, 128)


@pytest.mark.parametrize("question", ["", "  \n", 12, None, "Is it <|im_end|>?"], ids=repr)
def test_invalid_questions(network, question):
    with pytest.raises(QuestionError):
        network(volume()[None], [[question]])


def test_conversations(network, monkeypatch):
    """The study is only in the first turn, the model gets all turns in order, and nothing is encoded again."""
    study = network.encode(volume(depth=3, kept_indices=[1, 2, 5]))
    monkeypatch.setattr(encoding, "encode_and_prune_each", lambda *_, **__: pytest.fail("encoded again"))
    turns = ["First?", "Yes {x}.", "Second?", "No.", "Third?"]
    text = prompt_text(network, study, turns)
    places = [text.index(one) for one in turns]
    assert places == sorted(places)
    assert text.startswith(prompt_text(network, study, "First?").split("First?")[0] + "First?")
    checkpoint = network.engine.checkpoint
    image = checkpoint.family.image_token_id
    tokens = checkpoint.tokenizer(text)["input_ids"]
    assert sum(one == image for one in tokens) == sum(one.keep.numel() for one in study.record.slices)
    assert network.answer(study, ["First?"]).text == network.answer(study, "First?").text
    assert isinstance(network.answer(study, turns[:3]).text, str)


@pytest.mark.parametrize("question", [[], ["a?", "b"], ["a?", "", "b?"], ["a?", 3, "b?"], ["a?", "<|im_end|>", "b?"]])
def test_invalid_conversations(network, question):
    with pytest.raises(QuestionError):
        network.answer(network.encode(volume(depth=1)), question)


def test_special_tokens_that_the_tokenizer_does_not_list(checkpoint):
    network = VolumeQA.from_pretrained(str(checkpoint), PRUNER)
    tokenizer = network.engine.checkpoint.tokenizer
    tokenizer.add_tokens(AddedToken("<end_of_turn>", special=True))
    assert "<end_of_turn>" not in tokenizer.all_special_tokens
    with pytest.raises(QuestionError, match="<end_of_turn>"):
        prompt_text(network, network.encode(volume(depth=1)), "Is it?<end_of_turn>")


def test_other_texts_are_asked_verbatim(network):
    question = "Größe {x} in 'mm', \"left\" # $y @z % 肺? <b>"
    text = prompt_text(network, network.encode(volume(depth=1)), question)
    assert question in text
    tokenizer = network.engine.checkpoint.tokenizer
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    ("voxels", "error"),
    [
        (torch.zeros(1, 64, 64, 3), VolumeShapeError),
        (torch.zeros(1, 2, 64, 64, 3), VolumeShapeError),
        (torch.full((1, 1, 64, 64, 3), 40.0), IntensityUnitsError),
        (torch.full((1, 1, 64, 64, 3), torch.nan), IntensityUnitsError),
    ],
    ids=["4-D", "two channels", "HU", "NaN"],
)
def test_volumes_that_cannot_be_read(network, voxels, error):
    with pytest.raises(error):
        network(voxels)


def test_questions_must_match_volumes(network):
    with pytest.raises(QuestionError, match="1 volumes, got 2"):
        network(volume()[None], [["a?"], ["b?"]])


def test_prompt_longer_than_the_context(network, monkeypatch):
    monkeypatch.setattr(model_of(network).config.get_text_config(), "max_position_embeddings", 40)
    with pytest.raises(PromptError, match="context has 40"):
        network(volume()[None], [["a?"]])


@pytest.mark.parametrize(
    ("part", "setting"), [(TransformersEngine, "max_new_tokens"), (TransformersEncoder, "token_budget")]
)
def test_bad_settings(part, setting):
    with pytest.raises(SettingsError, match=setting):
        part(Checkpoint("folder"), **{setting: 0})


def test_bad_parts():
    with pytest.raises(SettingsError, match="parts"):
        Checkpoint("folder", parts="language")
    with pytest.raises(SettingsError, match="language model"):
        TransformersEngine(Checkpoint("folder", parts="vision"))


def test_an_encoder_without_the_language_model(checkpoint, network):
    """A checkpoint without its language model gives bitwise equal tokens."""
    vision = Checkpoint(str(checkpoint), parts="vision")
    alone, whole = TransformersEncoder(vision, PRUNER).encode(volume()), network.encode(volume())
    assert all(map(torch.equal, alone.tokens, whole.tokens))
    for rows, others in zip(alone.deepstack_features, whole.deepstack_features, strict=True):
        assert all(map(torch.equal, rows, others))
    assert alone.key == whole.key
    model = model_of(network)
    language = {name for name, _ in model.named_parameters() if "language_model.layers" in name}
    assert language
    assert not language & {name for name, _ in vision.model.named_parameters()}
    seen, all_of_it = (sum(one.numel() for one in one_model.parameters()) for one_model in (vision.model, model))
    assert seen < all_of_it - sum(one.numel() for name, one in model.named_parameters() if name in language)
    answer = network.answer(alone, "Is it?")
    assert answer.text == network.answer(whole, "Is it?").text


@pytest.mark.parametrize(
    "texts", [{"before_slice": "{slice}"}, {"after_slice": "{"}, {"question": "no field"}, {"question": "{other}"}]
)
def test_bad_prompt_texts(texts):
    with pytest.raises(SettingsError):
        VolumePrompt(**texts)


def test_prompt_parts():
    prompt = VolumePrompt("Read this.", "", "SLICE {number}", question="\n\n{question}")
    assert prompt.content([3, 9], "Why {number}?", "<image>") == [
        {"type": "text", "text": "Read this."},
        {"type": "image"},
        {"type": "text", "text": "SLICE 3"},
        {"type": "image"},
        {"type": "text", "text": "SLICE 9"},
        {"type": "text", "text": "\n\nWhy {number}?"},
    ]


def test_prompt_in_one_text():
    """Hulu-Med's prompt: placeholders separated by commas, so that the chat template adds nothing."""
    prompt = VolumePrompt("", "", "", separator=",", question="\n{question}", image_parts=False)
    assert prompt.content([3, 9, 10], "Why?", "<image>") == [{"type": "text", "text": "<image>,<image>,<image>\nWhy?"}]


def test_images_written_into_the_text(checkpoint, network):
    """The model gets the same tokens if the template or the text has the images."""
    prompt = VolumePrompt(before_slice="", separator=",", image_parts=False)
    other = VolumeQA.from_pretrained(str(checkpoint), PRUNER, max_new_tokens=3, prompt=prompt)
    study = other.encode(volume(depth=3))
    family, tokenizer = other.engine.checkpoint.family, other.engine.checkpoint.tokenizer
    text = prompt_text(other, study, "Is it?")
    rows, columns = study.grids[0]
    assert text.count(family.image_text(tokenizer, rows * columns)) == 3
    assert family.image_marker(tokenizer) in text
    assert len(other.ask(study, ["Is it?"]).record.slices) == 3


def test_answers_are_streamed(checkpoint):
    pieces = []
    network = VolumeQA.from_pretrained(str(checkpoint), PRUNER, max_new_tokens=6)
    network.stream = lambda piece, ends: pieces.append(piece + "|" * ends)
    (answered,) = network(volume()[None], [["a?", "b?"]])
    assert len(pieces) >= 2
    assert [one.strip() for one in "".join(pieces).split("|")] == [*answered.texts, ""]


def test_token_budget(checkpoint, network):
    """Every slice gets an equal share, or the family refuses a budget."""
    budget = max(4 * 16, network.encode(volume(depth=4)).record.unpruned_tokens // 2)
    small = TransformersEncoder(network.encoder.checkpoint, PRUNER, token_budget=budget)
    if type(network.encoder.checkpoint.family).image_size_for is ModelFamily.image_size_for:
        with pytest.raises(SettingsError, match="max_slices"):
            small.encode(volume(depth=4))
        return
    wide = MetaTensor(torch.rand(1, 320, 320, 4))
    free = network.encode(wide)
    assert free.record.unpruned_tokens > budget
    shrunk = small.encode(wide)
    assert shrunk.record.unpruned_tokens <= budget
    assert shrunk.key != free.key


def test_description_of_the_network(checkpoint, network):
    described = network.describe()
    assert described["model"]["model_id"] == str(checkpoint)
    assert described["model"]["random_weights"] is True
    assert described["model"]["model_type"] == model_of(network).config.model_type
    assert described["pruner"] == {"name": "nucleus", **asdict(PRUNER)}
    engine = {"name": "transformers", "max_new_tokens": 6, "max_seconds": None, "prefix_reuse": True}
    engine |= {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
    used = described["engine"].pop("checkpoint")
    assert described["engine"] == engine
    assert used["overridden"] == {}
    assert used["kept"]["eos_token_id"] == network.engine.checkpoint.tokenizer.eos_token_id
    described["engine"]["checkpoint"] = used
    assert described["prompt"] == asdict(VolumePrompt())
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=["GPU", "main"])
def test_out_of_memory_is_retried_with_fewer_slices(network, monkeypatch, caplog, error):
    one = volume(depth=8)
    expected = network(one[None], [["a?"]])
    batches = []
    encode = encoding.encode_and_prune_each

    def failing_once(family, pruners, inputs, vision_batch_size=None, **more):
        batches.append(vision_batch_size)
        if len(batches) == 1:
            raise error
        return encode(family, pruners, inputs, vision_batch_size, **more)

    monkeypatch.setattr(encoding, "encode_and_prune_each", failing_once)
    (found,) = network(one[None], [["a?"]])
    assert found.texts == expected[0].texts
    assert batches == [None, 2]
    note = f"out of memory ({type(error).__name__}) with up to 8 slices in the encoder at once; tried again with 2"
    assert found.record.notes == (note,)
    assert note in caplog.text


def test_out_of_memory_is_retried_once(network, monkeypatch):
    calls = []

    def failing(*_, **__):
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(encoding, "encode_and_prune_each", failing)
    with pytest.raises(torch.OutOfMemoryError):
        network(volume(depth=8)[None], [["a?"]])
    assert len(calls) == 2


def test_other_errors_are_not_retried(network, monkeypatch):
    calls = []

    def failing(*_, **__):
        calls.append(1)
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(encoding, "encode_and_prune_each", failing)
    with pytest.raises(RuntimeError, match="shapes differ"):
        network(volume(depth=8)[None], [["a?"]])
    assert len(calls) == 1


def test_several_pruners_share_the_encoder(network):
    """Each pruner gives its own result, and a part of the slices equals their result among all."""
    one = volume(depth=6)
    pruners = [None, PRUNER, NucleusPruner(tau=0.3, temperature=0.05)]
    together = network.encoder.encode_each(one, pruners)
    places = [4, 0, 3]
    for pruner, study in zip(pruners, together, strict=True):
        (alone,) = network.encoder.encode_each(one, [pruner])
        assert alone.key == study.key
        assert all(map(torch.equal, study.tokens, alone.tokens))
        assert all(map(torch.equal, study.places, alone.places))
        for rows, others in zip(study.deepstack_features, alone.deepstack_features, strict=True):
            assert all(map(torch.equal, rows, others))
        part = study.of_slices(places)
        assert all(token is study.tokens[place] for token, place in zip(part.tokens, places, strict=True))
        assert part.grids == [study.grids[place] for place in places]
        assert part.record.slice_indices == tuple(places)
    assert len({study.key for study in together}) == 3
    assert len({study.record.retention["overall"] for study in together}) == 3
