# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Result lines: their schema, and reading a run's output folder."""

from __future__ import annotations

import json

import jsonschema
import pytest
from study_records import study_record

from monai_medpruner.errors import OutputFolderError
from monai_medpruner.results import LINE_SCHEMA, STAGES, Answer, append_line, read_lines, read_results, result_line

QUESTION = {"id": "q1", "image": "ct.nii.gz", "question": "Where?", "prompt": "Where? Choices: A. {}"}
ANSWER = Answer("A.\u2028", {"prefill": 0.5, "decode": 1.0}, 30, 8, 3)


def line(first=True, **changed):
    arguments = {"record": study_record(), "answer": ANSWER, "first": first, "peak_memory": 5_000_000}
    return result_line(QUESTION, {"engine": {"name": "transformers"}}, **{**arguments, **changed})


def test_schema_is_valid():
    jsonschema.Draft202012Validator.check_schema(LINE_SCHEMA)


def test_every_kind_of_line_follows_the_schema():
    failed_in_the_model = line(answer=None, error=("MemoryError", "no room"))
    failed_before = line(record=None, answer=None, error=("UnreadableVolumeError", "cut short"))
    item = {**QUESTION, "reference": "Liver", "choices": {"A": "Liver"}, "reference_choice": "A", "task": "closed"}
    for one in (line(), line(first=False), failed_in_the_model, failed_before, result_line(item, {})):
        jsonschema.validate(json.loads(json.dumps(one)), LINE_SCHEMA)
    assert (failed_before["status"], failed_before["answer"]) == ("UnreadableVolumeError", "")
    assert "tokens" not in failed_before
    assert failed_in_the_model["tokens"] == line()["tokens"]


@pytest.mark.parametrize(
    "change", [{"answer": None}, {"status": 3}, {"tokens": {"kept": 1}}, {"unknown": 1}, {"id": ""}]
)
def test_schema_refuses_other_lines(change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**line(), **change}, LINE_SCHEMA)


def test_shared_stages_are_on_the_first_line():
    first, second = line(), line(first=False)
    assert first["seconds"] == {
        "load": 0.5,
        "filter": 0.25,
        "encode": 2.0,
        "select": 0.125,
        "prefill": 0.5,
        "decode": 1.0,
    }
    assert second["seconds"] == {**dict.fromkeys(STAGES, 0.0), "prefill": 0.5, "decode": 1.0}


def test_written_results_are_read_back(tmp_path):
    record = study_record()
    record_file = tmp_path / "records" / f"{record.volume_id}.safetensors"
    record_file.parent.mkdir()
    record.save(record_file)
    with (tmp_path / "answers.jsonl").open("a", encoding="utf-8") as file:
        append_line(file, line())
        append_line(file, line(first=False))
    results = read_results(tmp_path)
    assert results.lines == [line(), line(first=False)]
    assert results.record_names == ["ab12"]
    assert results.record("ab12").summary() == record.summary()
    assert results.metrics is None


def test_folders_without_a_run(tmp_path):
    with pytest.raises(OutputFolderError, match="neither"):
        read_results(tmp_path)
    (tmp_path / "predictions.jsonl").write_text('{"id": "a"}\nno json\n')
    with pytest.raises(OutputFolderError, match="cannot be read"):
        read_results(tmp_path)
    (tmp_path / "predictions.jsonl").write_text("[1]\n")
    with pytest.raises(OutputFolderError, match="not a JSON object"):
        read_lines(tmp_path / "predictions.jsonl")
    (tmp_path / "predictions.jsonl").write_text("{}\n")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(OutputFolderError, match=r"metrics\.json is damaged"):
        read_results(tmp_path)
