# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A pruner that needs the question runs after encoding, once per question."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest
import torch
from conftest import SIZES
from monai.data import MetaTensor
from recorded_vlm import RecordedVLM

from monai_medpruner.engines import VolumeQA
from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import Checkpoint, PrunedVLM, TransformersEncoder
from monai_medpruner.networks import transformers_encoder as encoding
from monai_medpruner.pruners import QuestionEmbedding, TokenPruner


@dataclass(frozen=True)
class RelevantTokens(TokenPruner):
    """Keeps the half of each slice's tokens that point most in the direction of the question."""

    @property
    def signals(self):
        return frozenset({QuestionEmbedding()})

    def score(self, slices):
        return slices.tokens.float() @ slices.signal(QuestionEmbedding()).float().mean(0)

    def select(self, score, slices):
        order = score.masked_fill(~slices.valid, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        return order < (slices.valid.sum(1, keepdim=True) / 2).ceil()


PRUNER = RelevantTokens(contextual_ratio=0)
QUESTIONS = ["Is there an effusion?", "Liver or spleen, which one"]


@pytest.fixture
def volume():
    return MetaTensor(torch.rand(1, 64, 96, 4, generator=torch.Generator().manual_seed(0)))


def expected_places(checkpoint, tokens, question):
    """The kept tokens of each slice, slice by slice in float64."""
    ids = checkpoint.tokenizer(question, add_special_tokens=False, return_tensors="pt")["input_ids"]
    direction = checkpoint.model.get_input_embeddings()(ids)[0].double().mean(0)
    places = []
    for one in tokens:
        order = (one.double() @ direction).argsort(descending=True)
        places.append(order[: (len(one) + 1) // 2].sort().values)
    return places


def test_each_question_has_its_own_tokens(checkpoint, volume, monkeypatch):
    network = VolumeQA.from_pretrained(str(checkpoint), PRUNER, max_new_tokens=3)
    study = network.encode(volume)
    assert study.record.retention["overall"] == 1
    every = study.tokens
    monkeypatch.setattr(encoding, "encode_scored", lambda *_, **__: pytest.fail("encoded again"))
    pruned = [network.for_question(study, one) for one in QUESTIONS]
    for one, question in zip(pruned, QUESTIONS, strict=True):
        with torch.no_grad():
            places = expected_places(network.engine.checkpoint, every, question)
        assert all(map(torch.equal, one.places, places))
        for tokens, of_slice, place in zip(one.tokens, every, places, strict=True):
            assert torch.equal(tokens, of_slice[place])
        assert one.key.question == one.record.question == hashlib.sha256(question.encode()).hexdigest()
        assert one.record.name == f"{study.record.volume_id}-{one.record.question[:12]}"
        assert network.for_question(one, "anything") is one
    assert len({study.key, *(one.key for one in pruned)}) == 3
    assert any(not torch.equal(*places) for places in zip(pruned[0].places, pruned[1].places, strict=True))
    answered = network.ask(study, QUESTIONS)
    assert [record.name for record in answered.question_records] == [one.record.name for one in pruned]
    assert answered.texts == [
        network.answer(one, question).text for one, question in zip(pruned, QUESTIONS, strict=True)
    ]


def test_a_batch_of_prompts_equals_one_by_one(model, prompts):
    """The question of a prompt is the text behind its last visual token."""
    vlm = RecordedVLM(model, PRUNER)
    together = prompts(SIZES[:3], SIZES[3:])
    together["input_ids"][1, -2:] = together["input_ids"][1, -3]  # another question
    vlm(**together)
    record = vlm.record
    for row, (start, stop) in enumerate([(0, 3), (3, 4)]):
        mask = together["attention_mask"][row].bool()
        names = ("input_ids", "attention_mask", *vlm.family.token_inputs)
        alone = {name: together[name][row : row + 1, mask] for name in names}
        vlm(**alone, **vlm.family.slice_inputs(together, start, stop))
        assert torch.equal(vlm.record.keep[0], record.keep[row, mask])
        assert 0 < vlm.record.kept_tokens < vlm.record.unpruned_tokens


def test_where_the_question_is_missing(checkpoint, model, batch, volume):
    with pytest.raises(SettingsError, match="question"):
        PrunedVLM(model, PRUNER).encode(**batch)
    encoder = TransformersEncoder(Checkpoint(str(checkpoint), parts="vision"), PRUNER)
    with pytest.raises(SettingsError, match="parts='all'"):
        encoder.for_question(encoder.encode(volume), "Is it?")
