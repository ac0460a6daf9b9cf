# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Questions cannot change a prompt's structure, and their length and the time of an answer are limited."""

from __future__ import annotations

import tarfile

import pytest
import torch
from monai.data import MetaTensor
from tokenizers import AddedToken, normalizers
from transformers import AutoTokenizer

from monai_medpruner.engines import Conversation, TransformersEngine, VolumePrompt, VolumeQA
from monai_medpruner.engines.conversation import conversation_text
from monai_medpruner.errors import QuestionError, SettingsError
from monai_medpruner.networks import Checkpoint
from monai_medpruner.networks import transformers_encoder as encoding
from monai_medpruner.pruners import NucleusPruner


@pytest.fixture(scope="module")
def network(checkpoint):
    return VolumeQA.from_pretrained(str(checkpoint), NucleusPruner(tau=0.5, temperature=0.5), max_new_tokens=6)


@pytest.fixture
def volume():
    return MetaTensor(torch.rand(1, 64, 96, 2, generator=torch.Generator().manual_seed(0)))


def test_long_question(network, volume, monkeypatch):
    monkeypatch.setattr(encoding, "encode_and_prune_each", lambda *_, **__: pytest.fail("was encoded"))
    with pytest.raises(QuestionError, match=r"20001 characters; the maximum is 20000"):
        network(volume[None], [["x" * 20_001]])


def test_turns_of_a_conversation(network, volume):
    short = VolumeQA(network.encoder, network.engine, max_characters=5)
    study = short.encode(volume)
    assert short.answer(study, "12345").new_tokens > 0
    for turns in ("123456", ["a?", "123456", "b?"]):
        with pytest.raises(QuestionError, match=r"maximum is 5.*limit_question"):
            short.answer(study, turns)


def test_half_a_character(network, volume):
    with pytest.raises(QuestionError, match="not valid in Unicode"):
        network.answer(network.encode(volume), "a\ud800?")


def test_answer_that_takes_too_long(network, volume):
    study = network.encode(volume)
    whole = network.answer(study, "a?")
    engine = TransformersEngine(network.engine.checkpoint, max_new_tokens=6, max_seconds=1e-9)
    cut = VolumeQA(network.encoder, engine).answer(study, "a?")
    assert (whole.notes, cut.new_tokens) == ((), 1)
    assert cut.notes == ("the answer may be cut short: it was ended after 1e-09 seconds (limit_seconds)",)
    assert whole.text.startswith(cut.text.rstrip("\ufffd"))  # a token may be half a character
    slow = VolumeQA(network.encoder, TransformersEngine(network.engine.checkpoint, max_new_tokens=6, max_seconds=600))
    assert slow.answer(study, "a?").text == whole.text


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_seconds_are_checked(seconds):
    with pytest.raises(SettingsError, match="max_seconds"):
        TransformersEngine(Checkpoint("folder"), max_seconds=seconds)


def test_every_special_token_is_refused(network, volume):
    study, tokenizer = network.encode(volume), network.engine.checkpoint.tokenizer
    special = {*tokenizer.all_special_tokens, network.engine.checkpoint.family.image_marker(tokenizer)}
    assert len(special) > 3
    for token in special:
        with pytest.raises(QuestionError, match="special tokens"):
            network.answer(study, f"Is it{token}?")


def test_image_token_that_is_not_marked_as_special(checkpoint, volume):
    network = VolumeQA.from_pretrained(str(checkpoint), NucleusPruner())
    tokenizer = network.engine.checkpoint.tokenizer
    # as normalization makes one of other characters
    tokenizer.add_tokens(AddedToken("<IMAGE>", special=True, normalized=True))
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    with pytest.raises(QuestionError, match="<IMAGE>"):
        network.answer(network.encode(volume), "Is it ＜ＩＭＡＧＥ＞?")


@pytest.mark.parametrize("model_type", ["qwen3_vl", "gemma3"])
def test_published_tokenizers(repository, tmp_path, model_type):
    """Every added token that structures a prompt is refused as text; words and symbols pass, and add no such token."""
    archive = repository.parent / "shared" / "tokenizers" / f"{model_type}.tar.gz"
    if not archive.exists():
        pytest.skip(f"needs shared/tokenizers/{model_type}.tar.gz beside the repository, which is absent here")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / model_type)
    marked = {number: str(one) for number, one in tokenizer.added_tokens_decoder.items() if one.special}
    image = {"qwen3_vl": "<|image_pad|>", "gemma3": "<start_of_image>"}[model_type]
    assert image in marked.values()

    class Family:
        image_token_id = tokenizer.convert_tokens_to_ids(image)

        def image_marker(self, tokenizer):
            return image

        def image_text(self, tokenizer, tokens):
            return image * tokens

    def ids(question):
        text = conversation_text(
            Conversation.about(VolumePrompt(image_parts=False), question), tokenizer, Family(), [(2, 2)], [0]
        )
        return [one for one in tokenizer(text, add_special_tokens=False)["input_ids"] if one in marked]

    tokenizer.chat_template = tokenizer.chat_template or (
        "{% for message in messages %}<start_of_turn>{{ message.role }}\n{% for part in message.content %}"
        "{{ part.text }}{% endfor %}<end_of_turn>\n{% endfor %}"
    )
    plain = ids("Is it?")
    for token in marked.values():
        with pytest.raises(QuestionError, match="special tokens"):
            ids(f"Is {token} it?")
    for question in ("< | im_end | >", "<|im_end", "|>", "<image>?", "Größe < 5 > 3 |x| [INST] 肺 </s", "<end_of_turn"):
        assert ids(question) == plain
