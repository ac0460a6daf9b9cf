# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Answers on disk, also after an interrupted run."""

from __future__ import annotations

import json

import jsonschema
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator

from monai_medpruner.data import collate_volumes
from monai_medpruner.engines import VolumeQA
from monai_medpruner.errors import OutputFolderError
from monai_medpruner.handlers import AnswerWriter
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.results import LINE_SCHEMA, StudyRecord
from monai_medpruner.testing import save_tiny_checkpoint


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = save_tiny_checkpoint("qwen3_vl", tmp_path_factory.mktemp("tiny"))
    return VolumeQA.from_pretrained(str(folder), NucleusPruner(tau=0.5, temperature=0.05), max_new_tokens=2)


def item(name, *questions, value=0.0):
    meta = {"volume_id": name, "filename_or_obj": f"{name}.nii", "kept_indices": [1, 4], "source_depth": 6}
    meta["seconds"] = [["load", 1.5], ["filter", 0.5]]
    voxels = torch.rand(1, 64, 96, 2, generator=torch.Generator().manual_seed(3)) + value
    return {
        "image": MetaTensor(voxels, affine=torch.eye(4), meta={**meta, "notes": ["seen"]}),
        "question": list(questions),
    }


def evaluate(network, folder, *items):
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(list(items)), batch_size=1, collate_fn=collate_volumes),
        network=network,
        prepare_batch=PrepareBatchExtraInput({"question": "question"}),
        val_handlers=[AnswerWriter(folder)],
        decollate=False,
    ).run()


def lines(folder):
    read = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").split("\n") if line]
    for line in read:
        jsonschema.validate(line, LINE_SCHEMA)
    return read


def test_fields(network, tmp_path):
    evaluate(network, tmp_path, item("one", "a?", "Größe?"), item("two", "b?"))
    first, second, third = lines(tmp_path)
    assert [line["volume_id"] for line in (first, second, third)] == ["one", "one", "two"]
    assert [line["id"] for line in (first, second, third)] == ["one-0", "one-1", "two-0"]
    assert [line["question"] for line in (first, second, third)] == ["a?", "Größe?", "b?"]
    assert first["image"] == "one.nii"
    assert first["slices"] == {"total": 6, "kept": 2, "indices": [1, 4], "largest_gap_mm": None}
    assert first["tokens"]["unpruned"] == 6 * 2 * 3
    assert sum(first["tokens"]["per_slice"]) == first["tokens"]["kept"] < 2 * 2 * 3
    assert first["seconds"]["load"] == 1.5
    assert first["seconds"]["filter"] == 0.5
    assert all(second["seconds"][stage] == 0 for stage in ("load", "filter", "encode", "select"))
    assert second["seconds"]["prefill"] > 0
    assert first["settings"]["pruner"]["tau"] == 0.5
    assert first["settings"]["model"]["random_weights"] is True
    assert first["settings"]["engine"]["max_new_tokens"] == 2
    assert first["notes"] == ["seen"]
    record = StudyRecord.load(tmp_path / "records" / "one.safetensors")
    assert record.kept_tokens == first["tokens"]["per_slice"]
    assert torch.equal(record.geometry.affine, torch.eye(4, dtype=torch.float64))
    # the engine's settings are not in the record
    assert {**record.settings, **{name: first["settings"][name] for name in ("prompt", "engine")}} == first["settings"]


def test_ids_of_a_questions_file(network, tmp_path):
    evaluate(network, tmp_path, {**item("one", "a?", "b?"), "question_id": ["first", None]})
    assert [line["id"] for line in lines(tmp_path)] == ["first", "one-1"]


def test_interrupted_run_keeps_its_answers(network, tmp_path):
    with pytest.raises(ValueError, match=r"intensities in \[0, 1\]"):
        evaluate(network, tmp_path, item("one", "a?"), item("broken", "b?", value=900.0))
    assert [line["volume_id"] for line in lines(tmp_path)] == ["one"]


def test_earlier_answers_are_renamed(network, tmp_path):
    for name in ("one", "two", "three"):
        evaluate(network, tmp_path, item(name, "a?"))
    assert [line["volume_id"] for line in lines(tmp_path)] == ["three"]
    aside = sorted(tmp_path.glob("answers-*.jsonl"))
    assert sorted(json.loads(path.read_text())["volume_id"] for path in aside) == ["one", "two"]


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFolderError, match="cannot write"):
        AnswerWriter(tmp_path / "file").begin(Engine(lambda *_: None))
