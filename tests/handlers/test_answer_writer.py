# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Answers on disk, whatever ends the run."""

from __future__ import annotations

import json

import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from safetensors.torch import load_file

from monai_medpruner.data import collate_volumes
from monai_medpruner.errors import OutputFolderError
from monai_medpruner.handlers import AnswerWriter
from monai_medpruner.networks import VolumeQA
from monai_medpruner.pruners import NucleusPruner


@pytest.fixture(scope="module")
def network():
    return VolumeQA("tiny", NucleusPruner(tau=0.5, temperature=0.05), max_new_tokens=2)


def item(name, *questions, value=0.0):
    meta = {"volume_id": name, "filename_or_obj": f"{name}.nii", "kept_indices": [1, 4], "source_depth": 6}
    voxels = torch.rand(1, 64, 96, 2, generator=torch.Generator().manual_seed(3)) + value
    return {
        "image": MetaTensor(voxels, affine=torch.eye(4), meta={**meta, "notes": ["seen"]}),
        "question": list(questions),
        "seconds": {"load": 1.5, "filter": 0.5},
    }


def evaluate(network, folder, *items):
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(list(items)), batch_size=1, collate_fn=collate_volumes),
        network=network,
        prepare_batch=PrepareBatchExtraInput({"question": "question"}),
        val_handlers=[AnswerWriter(folder, {"gamma": 0.025})],
        decollate=False,
    ).run()


def lines(folder):
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]


def test_fields(network, tmp_path):
    evaluate(network, tmp_path, item("one", "a?", "Größe?"), item("two", "b?"))
    first, second, third = lines(tmp_path)
    assert [line["id"] for line in (first, second, third)] == ["one", "one", "two"]
    assert [line["question"] for line in (first, second, third)] == ["a?", "Größe?", "b?"]
    assert first["image"] == "one.nii"
    assert first["slices"] == {"total": 6, "kept": 2, "indices": [1, 4]}
    assert first["tokens"]["unpruned"] == 6 * 2 * 3
    assert sum(first["tokens"]["per_slice"]) == first["tokens"]["kept"] < 2 * 2 * 3
    assert first["seconds"]["load"] == 1.5
    assert first["seconds"]["filter"] == 0.5
    assert all(second["seconds"][stage] == 0 for stage in ("load", "filter", "encode", "select"))
    assert second["seconds"]["prefill"] > 0
    assert first["settings"]["gamma"] == 0.025
    assert first["settings"]["random_weights"] is True
    assert first["notes"] == ["seen"]
    record = load_file(tmp_path / "records" / "one.safetensors")
    keep = record["primary"] | record["contextual"]
    assert [int(part.sum()) for part in keep.split(6)] == first["tokens"]["per_slice"]
    assert torch.equal(record["affine"], torch.eye(4, dtype=torch.float64))


def test_a_run_that_breaks_off_loses_nothing(network, tmp_path):
    with pytest.raises(ValueError, match=r"intensities in \[0, 1\]"):
        evaluate(network, tmp_path, item("one", "a?"), item("broken", "b?", value=900.0))
    assert [line["id"] for line in lines(tmp_path)] == ["one"]


def test_earlier_answers_are_put_aside(network, tmp_path):
    for name in ("one", "two", "three"):
        evaluate(network, tmp_path, item(name, "a?"))
    assert [line["id"] for line in lines(tmp_path)] == ["three"]
    aside = sorted(tmp_path.glob("answers-*.jsonl"))
    assert sorted(json.loads(path.read_text())["id"] for path in aside) == ["one", "two"]


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFolderError, match="cannot write"):
        AnswerWriter(tmp_path / "file").begin(Engine(lambda *_: None))
