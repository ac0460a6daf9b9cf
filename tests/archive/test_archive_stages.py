# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The three stages, called one after the other without Ray."""

from __future__ import annotations

import json

import jsonschema
import pytest
from archive_runs import BUNDLE, CUT, lasting

from monai_medpruner.archive import BundleSettings
from monai_medpruner.archive.stages import AnswerStudies, EncodeStudies, ReadStudies, run_settings
from monai_medpruner.archive.transit import StudyInTransit
from monai_medpruner.cli.main import main
from monai_medpruner.engines import TransformersEngine
from monai_medpruner.errors import EngineUnreachableError
from monai_medpruner.results import LINE_SCHEMA
from monai_medpruner.settings import bundle_folders, setting_overrides

QUESTIONS = ["Which organ contains the lesion?", "Which plane is it?"]


def bundle_settings(**given):
    return BundleSettings(BUNDLE, setting_overrides(bundle_folders()[BUNDLE], {"device": "cpu", **given}))


def stages_of(settings):
    return [stage(settings) for stage in (ReadStudies, EncodeStudies, AnswerStudies)]


def through(stages, items):
    row = StudyInTransit(items).to_row()
    for stage in stages:
        row = stage(row)
    return StudyInTransit.from_row(row)


def items_about(archive, name, *questions):
    image = str(archive / "phantoms" / "volumes" / name)
    return [{"id": question, "image": image, "question": question, "prompt": question} for question in questions]


@pytest.fixture(scope="module")
def stages():
    return stages_of(bundle_settings())


@pytest.fixture(scope="module")
def asked(archive, tmp_path_factory):
    """The lines of ``medpruner ask`` about one phantom."""
    return ask(archive, tmp_path_factory.mktemp("asked"))


def ask(archive, folder, **given):
    image = str(archive / "phantoms" / "volumes" / "phantom_000003.nii.gz")
    words = [word for name, text in {"device": "cpu", **given}.items() for word in (f"--{name}", text)]
    main(["ask", "--image", image, "--question", *QUESTIONS, "--bundle", BUNDLE, "--output_dir", str(folder), *words])
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{**line, "id": line["question"]} for line in lines]


def test_lines_are_those_of_ask(stages, asked):
    expected = asked
    items = [{name: line[name] for name in ("id", "image", "question", "prompt")} for line in expected]
    study = through(stages, items)
    for line in study.lines:
        jsonschema.validate(json.loads(json.dumps(line)), LINE_SCHEMA)
    assert lasting(json.loads(json.dumps(study.lines))) == lasting(expected)
    assert list(study.records) == [expected[0]["record"]]
    assert study.lines[0]["seconds"]["load"] > 0
    assert study.lines[1]["seconds"]["load"] == 0


def test_encoders_load_no_language_model(stages):
    encoder = stages[1].network.encoder.checkpoint.model
    whole = stages[2].network.encoder.checkpoint.model
    assert len(whole.model.language_model.layers) > 0
    assert len(encoder.model.language_model.layers) == 0


def test_what_travels(stages, archive):
    """8-bit levels of the kept slices, then no voxels at all."""
    rows = [StudyInTransit(items_about(archive, "phantom_000003.nii.gz", "a?")).to_row()]
    for stage in stages:
        rows.append(stage(rows[-1]))
    line = StudyInTransit.from_row(rows[-1]).lines[0]
    _, read, encoded, answered = rows
    assert read["levels"].nbytes == line["slices"]["kept"] * 96 * 96
    assert encoded["levels"].nbytes == answered["levels"].nbytes == 0
    study = StudyInTransit.from_row(encoded)
    assert not study.meta
    # rows of the kept tokens with their DeepStack rows, float32, and the record
    assert len(study.studies[0]) < len(StudyInTransit.from_row(read).levels) * 96 * 96


def test_a_broken_study(stages, archive):
    study = through(stages, items_about(archive, CUT, "a?", "b?"))
    assert [line["status"] for line in study.lines] == ["UnreadableVolumeError"] * 2
    for line in study.lines:
        jsonschema.validate(json.loads(json.dumps(line)), LINE_SCHEMA)
        assert CUT in line["error"]
    assert not study.records


def test_a_question_that_fails_leaves_the_others(stages, archive):
    study = through(stages, items_about(archive, "phantom_000003.nii.gz", "a?", "b <|im_end|>?", "c?"))
    assert [line["status"] for line in study.lines] == ["ok", "QuestionError", "ok"]
    assert study.lines[1]["record"] == study.lines[0]["record"]


def test_a_pruner_that_needs_the_question(archive, tmp_path):
    """Each question has a study of its own; the answers are those of ask."""
    stages = stages_of(bundle_settings(pruner="cdpruner"))
    study = through(stages, items_about(archive, "phantom_000003.nii.gz", *QUESTIONS))
    expected = ask(archive, tmp_path, pruner="cdpruner")
    assert lasting(json.loads(json.dumps(study.lines))) == lasting(expected)
    assert len({line["record"] for line in study.lines}) == len(study.records) == 2


def test_an_engine_that_does_not_answer_ends_the_run(stages, archive, monkeypatch):
    def gone(*arguments, **options):
        raise EngineUnreachableError("no answer from the server")

    monkeypatch.setattr(TransformersEngine, "generate", gone)
    study = through(stages, items_about(archive, "phantom_000003.nii.gz", "a?"))
    assert not study.lines
    assert isinstance(study.ends_run, EngineUnreachableError)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_other_errors_are_recorded(stages, archive, monkeypatch, number):
    """Whatever is raised, also by a mistake here: a process that lets it out would be taken for dead."""

    def broken(study):
        raise ZeroDivisionError("told")

    monkeypatch.setattr(stages[number], "work", broken)
    [line] = through(stages, items_about(archive, "phantom_000003.nii.gz", "a?")).lines
    assert (line["status"], line["error"]) == ("ZeroDivisionError", "told")


def test_settings_of_a_run(asked):
    """What the identity of a run is made of is what its lines say."""
    assert json.loads(json.dumps(run_settings(bundle_settings()))) == asked[0]["settings"]
