# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Volumes and questions to answers."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from tokenizers import AddedToken

from monai_medpruner.data import collate_volumes
from monai_medpruner.errors import (
    IntensityUnitsError,
    PromptError,
    QuestionError,
    SettingsError,
    VolumeShapeError,
)
from monai_medpruner.networks import ModelFamily, PrunedVLM, VolumePrompt, VolumeQA
from monai_medpruner.networks import volume_qa as module
from monai_medpruner.networks.slice_images import slice_images
from monai_medpruner.pruners import NucleusPruner

PRUNER = NucleusPruner(tau=0.5, temperature=0.5)


@pytest.fixture(scope="module")
def network(checkpoint):
    return VolumeQA(str(checkpoint), PRUNER, max_new_tokens=6)


def volume(depth=5, channels=1, seed=0, **meta):
    voxels = torch.rand(channels, 64, 96, depth, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(voxels, meta=meta)


def test_nothing_is_loaded_before_the_first_use(checkpoint, monkeypatch):
    network = VolumeQA(str(checkpoint), PRUNER)
    assert not list(network.parameters())
    network(volume()[None])
    assert list(network.parameters())
    monkeypatch.setattr(module, "load_processors", lambda *_, **__: pytest.fail("loaded twice"))
    network(volume()[None])


def test_answers_keep_the_nesting(network):
    answers = network(torch.stack([volume(seed=1), volume(seed=2)]), [["a?", "b?", "a?"], ["c?"]])
    assert [len(one) for one in answers] == [3, 1]
    assert all(isinstance(text, str) for one in answers for text in one)
    assert answers[0][0] == answers[0][2]
    assert network(torch.stack([volume(seed=2)]), [["c?"]])[0] == answers[1]


def test_answer_is_that_of_the_wrapped_model(network):
    """The prompt written by hand, through the wrapper alone."""
    one = volume(depth=3)
    answer = network(one[None], [["Is it?"]])[0][0]
    tokenizer, processor = network._tokenizer, network._image_processor
    pixels = processor(images=slice_images(one), return_tensors="pt")
    vlm = PrunedVLM(network.vlm.model, PRUNER)
    inputs = {name: pixels[name] for name in vlm.family.image_inputs}
    text = tokenizer(network.prompt_text(vlm.family.token_grids(inputs), [0, 1, 2], "Is it?"), return_tensors="pt")
    output = vlm.generate(**text, **inputs, max_new_tokens=6, do_sample=False)
    assert tokenizer.decode(output[0, text["input_ids"].shape[1] :], skip_special_tokens=True).strip() == answer


def test_a_volume_is_encoded_once(network, monkeypatch):
    calls = []
    encode = PrunedVLM.encode_each
    monkeypatch.setattr(PrunedVLM, "encode_each", lambda *args, **inputs: calls.append(1) or encode(*args, **inputs))
    network(volume()[None], [["a?", "b?", "c?"]])
    assert len(calls) == 1
    first, *others = network.records[0].seconds
    assert first["encode"] > 0
    assert all(other["encode"] == other["select"] == 0 for other in others)
    assert all(set(one) == {"encode", "select", "prefill", "decode"} for one in (first, *others))


def test_prompt_bears_the_original_slice_numbers(network):
    texts = []
    write = network.prompt_text
    network.prompt_text = lambda *arguments: texts.append(write(*arguments)) or texts[-1]
    try:
        network(volume(depth=3, kept_indices=[4, 7, 30], source_depth=40)[None], [["Is it?"]])
    finally:
        del network.prompt_text
    assert [f"Slice {number}:" in texts[0] for number in (5, 8, 31)] == [True] * 3
    assert texts[0].count("Slice ") == 3
    record = network.records[0]
    assert record.slice_indices == [4, 7, 30]
    assert record.total_slices == 40
    assert record.unpruned_tokens == 40 * record.slices[0].keep.numel()
    assert record.kept_tokens == [int(one.keep.sum()) for one in record.slices]


def test_padded_batch_equals_one_by_one(network):
    """Volumes of unequal depth in one batch: the padding reaches nothing."""
    deep = {"image": volume(depth=5, seed=1, kept_indices=[0, 1, 2, 3, 9]), "question": ["a?"]}
    flat = {"image": volume(depth=2, seed=2, kept_indices=[6, 8]), "question": ["b?", "c?"]}
    batch = collate_volumes([deep, flat])
    together = network(batch["image"], batch["question"])
    kept = [record.kept_tokens for record in network.records]
    assert [record.slice_indices for record in network.records] == [[0, 1, 2, 3, 9], [6, 8]]
    for index, one in enumerate((deep, flat)):
        assert network(one["image"][None], [one["question"]])[0] == together[index]
        assert network.records[0].kept_tokens == kept[index]


@pytest.mark.parametrize("channels", [1, 3])
def test_tokens_without_a_question(network, channels):
    volumes = torch.stack([volume(channels=channels, seed=3), volume(channels=channels, seed=4)])
    tokens = network(volumes)
    counts = [sum(record.kept_tokens) for record in network.records]
    assert tokens.shape == (2, network.vlm.model.config.get_text_config().hidden_size, max(counts))
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
def test_questions_that_cannot_be_asked(network, question):
    with pytest.raises(QuestionError):
        network(volume()[None], [[question]])


def test_conversations(network):
    """The study stays in the first turn alone, all turns reach the model in order, and nothing is encoded again."""
    study = network.encode(volume(depth=3, kept_indices=[1, 2, 5]))
    arguments = study.slices.grids, study.record.slice_indices
    turns = ["First?", "Yes {x}.", "Second?", "No.", "Third?"]
    text = network.prompt_text(*arguments, turns)
    places = [text.index(one) for one in turns]
    assert places == sorted(places)
    assert text.startswith(network.prompt_text(*arguments, "First?").split("First?")[0] + "First?")
    image = network.vlm.family.image_token_id
    tokens = network._tokenizer(text)["input_ids"]
    assert sum(one == image for one in tokens) == sum(one.keep.numel() for one in study.record.slices)
    assert network.answer(study, ["First?"]) == network.answer(study, "First?")
    assert isinstance(network.answer(study, turns[:3]), str)
    assert [seconds["encode"] for seconds in study.record.seconds[1:]] == [0.0, 0.0]


@pytest.mark.parametrize("question", [[], ["a?", "b"], ["a?", "", "b?"], ["a?", 3, "b?"], ["a?", "<|im_end|>", "b?"]])
def test_conversations_that_cannot_go_on(network, question):
    network.vlm  # noqa: B018 - loads the tokenizer
    with pytest.raises(QuestionError):
        network.prompt_text([(1, 1)], [0], question)


def test_special_tokens_that_the_tokenizer_does_not_list(checkpoint):
    network = VolumeQA(str(checkpoint), PRUNER)
    network.vlm  # noqa: B018 - loads the tokenizer
    network._tokenizer.add_tokens(AddedToken("<end_of_turn>", special=True))
    assert "<end_of_turn>" not in network._tokenizer.all_special_tokens
    with pytest.raises(QuestionError, match="<end_of_turn>"):
        network.prompt_text([(1, 1)], [0], "Is it?<end_of_turn>")


def test_any_other_text_is_asked_verbatim(network):
    question = "Größe {x} in 'mm', \"left\" # $y @z % 肺? <b>"
    network.vlm  # noqa: B018 - loads the tokenizer
    text = network.prompt_text([(1, 1)], [0], question)
    assert question in text
    assert network._tokenizer.decode(network._tokenizer(text)["input_ids"]) == text


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


def test_prompt_longer_than_the_model_reads(network, monkeypatch):
    monkeypatch.setattr(network.vlm.model.config.get_text_config(), "max_position_embeddings", 40)
    with pytest.raises(PromptError, match="40 at most"):
        network(volume()[None], [["a?"]])


@pytest.mark.parametrize("setting", ["max_new_tokens", "token_budget"])
def test_bad_settings(setting):
    with pytest.raises(SettingsError, match=setting):
        VolumeQA("tiny", **{setting: 0})


@pytest.mark.parametrize(
    "texts", [{"before_slice": "{slice}"}, {"after_slice": "{"}, {"question": "no field"}, {"question": "{other}"}]
)
def test_bad_prompt_texts(texts):
    with pytest.raises(SettingsError):
        VolumePrompt(**texts)


def test_prompt_form():
    prompt = VolumePrompt("Read this.", "", "SLICE {number}", question="\n\n{question}")
    assert prompt.content([3, 9], "Why {number}?", "<image>") == [
        {"type": "text", "text": "Read this."},
        {"type": "image"},
        {"type": "text", "text": "SLICE 3"},
        {"type": "image"},
        {"type": "text", "text": "SLICE 9"},
        {"type": "text", "text": "\n\nWhy {number}?"},
    ]


def test_prompt_form_in_one_text():
    """Hulu-Med's form: markers parted by commas, nothing that a chat template could add to."""
    prompt = VolumePrompt("", "", "", separator=",", question="\n{question}", image_parts=False)
    assert prompt.content([3, 9, 10], "Why?", "<image>") == [{"type": "text", "text": "<image>,<image>,<image>\nWhy?"}]


def test_images_written_into_the_text(checkpoint, network):
    """The same tokens reach the model, whether the template or the text writes the images."""
    other = VolumeQA(
        str(checkpoint),
        PRUNER,
        max_new_tokens=3,
        prompt=VolumePrompt(before_slice="", separator=",", image_parts=False),
    )
    other(volume(depth=3)[None], [["Is it?"]])
    marker = other.vlm.family.image_marker(other._tokenizer)
    text = other.prompt_text([(1, 2)] * 3, [0, 1, 2], "Is it?")
    assert text.count(other.vlm.family.image_text(other._tokenizer, 2)) == 3
    assert marker in text
    assert len(other.records[0].slices) == 3


def test_answers_are_streamed(checkpoint):
    pieces = []
    network = VolumeQA(
        str(checkpoint), PRUNER, max_new_tokens=6, stream=lambda piece, ends: pieces.append(piece + "|" * ends)
    )
    answers = network(volume()[None], [["a?", "b?"]])
    assert len(pieces) >= 2
    assert [one.strip() for one in "".join(pieces).split("|")] == [*answers[0], ""]


def test_token_budget(checkpoint, network):
    """Every slice gets an equal share, or the family says that it cannot."""
    network(volume(depth=4)[None])
    before = network.records[0].unpruned_tokens
    budget = max(4 * 16, before // 2)
    small = VolumeQA(str(checkpoint), PRUNER, token_budget=budget)
    family = network.vlm.family
    if type(family).image_size_for is ModelFamily.image_size_for:
        with pytest.raises(SettingsError, match="max_slices"):
            small(volume(depth=4)[None])
        return
    wide = MetaTensor(torch.rand(1, 1, 320, 320, 4))
    network(wide)
    assert network.records[0].unpruned_tokens > budget
    small(wide)
    assert small.records[0].unpruned_tokens <= budget


def test_tiny_says_that_its_weights_are_random(checkpoint, network):
    tiny = VolumeQA("tiny", tiny_model_type=network.vlm.model.config.model_type, max_new_tokens=2)
    assert tiny.settings["random_weights"] is True
    assert network.settings["random_weights"] is False
    assert network.settings["model_type"] == tiny.settings["model_type"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=["GPU", "main"])
def test_out_of_memory_is_tried_again_with_fewer_slices(network, monkeypatch, caplog, error):
    one = volume(depth=8)
    expected = network(one[None], [["a?"]])
    batches = []
    encode = PrunedVLM.encode_each

    def failing_once(self, pruners, vision_batch_size=None, **inputs):
        batches.append(vision_batch_size)
        if len(batches) == 1:
            raise error
        return encode(self, pruners, vision_batch_size, **inputs)

    monkeypatch.setattr(PrunedVLM, "encode_each", failing_once)
    assert network(one[None], [["a?"]]) == expected
    assert batches == [None, 2]
    note = f"out of memory ({type(error).__name__}) with up to 8 slices in the encoder at once; tried again with 2"
    assert network.records[0].notes == [note]
    assert note in caplog.text


def test_out_of_memory_is_tried_again_once(network, monkeypatch):
    calls = []

    def failing(*_, **__):
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PrunedVLM, "encode_each", failing)
    with pytest.raises(torch.OutOfMemoryError):
        network(volume(depth=8)[None], [["a?"]])
    assert len(calls) == 2


def test_other_errors_are_not_tried_again(network, monkeypatch):
    calls = []

    def failing(*_, **__):
        calls.append(1)
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(PrunedVLM, "encode_each", failing)
    with pytest.raises(RuntimeError, match="shapes differ"):
        network(volume(depth=8)[None], [["a?"]])
    assert len(calls) == 1


def test_several_pruners_on_one_run_of_the_encoder(network):
    """Each leaves what it leaves alone, and some of the slices are what they are among all."""
    one = volume(depth=6)
    pruners = [None, PRUNER, NucleusPruner(tau=0.3, temperature=0.05)]
    together = network.encode_each(one, pruners)
    places = [4, 0, 3]
    for pruner, study in zip(pruners, together, strict=True):
        (alone,) = network.encode_each(one, [pruner])
        assert all(map(torch.equal, study.slices.tokens, alone.slices.tokens))
        assert all(map(torch.equal, study.slices.keep, alone.slices.keep))
        for rows, others in zip(study.slices.deepstack_features, alone.slices.deepstack_features, strict=True):
            assert all(map(torch.equal, rows, others))
        part = study.slices.of_slices(places)
        assert all(token is study.slices.tokens[place] for token, place in zip(part.tokens, places, strict=True))
        assert part.grids == [study.slices.grids[place] for place in places]
    assert len({study.record.retention["overall"] for study in together}) == 3
