# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""An evaluation with an engine that answers many questions at once."""

from __future__ import annotations

import math

import pytest
from benchmark_runs import ROWS, lasting, read_lines, write_m3d

from monai_medpruner.bundles import open_bundle
from monai_medpruner.engines import TransformersEngine
from monai_medpruner.errors import EngineUnreachableError, PromptError, own_error
from monai_medpruner.networks import TransformersEncoder

VOLUMES = 3
AT_ONCE = 8
QUESTIONS = 2 * ROWS * VOLUMES  # each closed and open


@pytest.fixture
def data(tmp_path):
    return str(write_m3d(tmp_path / "m3d", VOLUMES))


@pytest.fixture
def together(monkeypatch):
    """Let the engine take questions together. Returns the questions of each call, and what is done before each."""
    answer, calls, before = TransformersEngine.generate_each, [], []

    def generate_each(self, asked, stream=None):
        calls.append([conversation.turns[-1] for _, conversation in asked])
        for one in before:
            one(calls[-1])
        return answer(self, asked, stream)

    monkeypatch.setattr(TransformersEngine, "questions_at_once", AT_ONCE)
    monkeypatch.setattr(TransformersEngine, "generate_each", generate_each)
    return calls, before


def test_volumes_are_encoded_until_there_are_enough_questions(evaluate, data, together, monkeypatch):
    calls, _ = together
    lines, metrics = evaluate("together", dataset_dir=data)
    # after two volumes there are 12 questions, after the last one the other six
    assert [len(one) for one in calls] == [AT_ONCE, 12 - AT_ONCE, QUESTIONS - 12]
    monkeypatch.undo()
    expected, expected_metrics = evaluate("one_by_one", dataset_dir=data)
    assert lasting(lines) == lasting(expected)
    assert metrics["accuracy"] == expected_metrics["accuracy"]


def test_a_question_that_fails_fails_alone(evaluate, data, together):
    calls, before = together

    def refuse(questions):
        if any("Which 1-2?" in one for one in questions):
            raise PromptError("too long")

    before.append(refuse)
    lines, metrics = evaluate("out", dataset_dir=data)
    failed = [line["question"] for line in lines if line["status"] == "PromptError"]
    assert failed == ["Which 1-2?"] * 2
    assert metrics["failed"] == 2
    assert len({line["id"] for line in lines}) == len(lines) == QUESTIONS
    assert all(line["answer"] for line in lines if line["status"] == "ok")
    # a question at fault costs two calls each time that the questions are halved, not one for each question
    assert len(calls) <= 3 + 2 * 2 * math.ceil(math.log2(AT_ONCE))


def test_an_evaluator_runs_again_after_an_interruption(repository, data, together, tmp_path, monkeypatch):
    """What waited for further questions is asked once, by the next run."""
    calls, _ = together
    settings = {"model_id": "tiny", "max_new_tokens": 3, "dataset_dir": data, "output_dir": str(tmp_path / "out")}
    folder = repository / "bundles" / "medpruner_qwen3vl"
    workflow = open_bundle(folder, settings, configs=("inference", "evaluate"))
    encode, encoded = TransformersEncoder.encode, []

    def interrupted(self, volume):
        encoded.append(volume)
        if len(encoded) == 2:
            raise KeyboardInterrupt
        return encode(self, volume)

    monkeypatch.setattr(TransformersEncoder, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        workflow.evaluator.run()
    assert not calls
    workflow.evaluator.run()
    lines = read_lines(tmp_path / "out")
    assert sum(map(len, calls)) == QUESTIONS
    assert len({line["id"] for line in lines}) == len(lines) == QUESTIONS


def test_an_engine_that_is_gone_ends_the_run_and_is_resumed(evaluate, data, together, tmp_path):
    """Nothing is recorded as failed, so that the same command asks what is left."""
    calls, before = together

    def gone(questions):
        if len(calls) > 1:
            raise EngineUnreachableError("no answer")

    before.append(gone)
    with pytest.raises(RuntimeError) as raised:  # MONAI's, which wraps ours
        evaluate("out", dataset_dir=data)
    assert isinstance(own_error(raised.value), EngineUnreachableError)
    written = read_lines(tmp_path / "out")
    assert [line["status"] for line in written] == ["ok"] * AT_ONCE
    before.clear()
    calls.clear()
    lines, metrics = evaluate("out", dataset_dir=data)
    assert sum(map(len, calls)) == QUESTIONS - AT_ONCE
    assert metrics["failed"] == 0
    assert len({line["id"] for line in lines}) == len(lines) == QUESTIONS
