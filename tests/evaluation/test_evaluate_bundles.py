# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The evaluation of every bundle on the file format of every benchmark."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from benchmark_runs import ROWS, bundle_arguments, lasting, read_lines
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_medpruner.data.phantom import PhantomSettings, phantom_command
from monai_medpruner.engines import VolumeQA
from monai_medpruner.errors import MixedRunError, SettingsError, UnreadableVolumeError
from monai_medpruner.evaluation import BenchmarkEvaluator
from monai_medpruner.metrics import find_protocol, score
from monai_medpruner.networks import transformers_encoder as encoding

BUNDLES = ("medpruner_qwen3vl", "medpruner_medgemma", "medpruner_hulumed")
# MedGemma's three HU windows need HU, but these files store scaled voxels
WINDOWS = {BUNDLES[0]: {}, BUNDLES[2]: {}, "medpruner_medgemma": {"windows": "auto"}}


def root_cause(error):
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def write_rad3d(folder):
    """Write a table as in 3D-RAD, and a volume with a name as in CT-RATE."""
    table = folder / "3DRAD" / "test" / "Task5_Static_Temporal" / "a.csv"
    table.parent.mkdir(parents=True)
    columns = ["Task", "Subtask", "VolumeName", "Question", "Answer", "QuestionType", "AnswerChoice"]
    row = ["Task5", "a", "test_1_a_1", "How has it changed?", "Stable", "Close", "B", "Grown", "Stable", "-", "-"]
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[*columns, *(f"Choice {i}" for i in "ABCD")], row])
    slices = folder / "valid_1_a_1"
    slices.mkdir()
    for number in range(12):  # as text, 10 would come before 2
        Image.fromarray(np.full((64, 64), 20 * number, dtype=np.uint8)).save(slices / f"{number}.png")
    return {"benchmark": "rad3d", "dataset_dir": str(folder)}


def write_amos(folder):
    folder.mkdir(exist_ok=True)
    np.save(folder / "amos_1.npy", np.random.default_rng(0).random((1, 4, 64, 64), dtype=np.float32))
    labels = {
        "report": {"findings": {"chest": "Clear.", "abdomen": "A cyst.", "pelvis": ""}},
        "qa": [{"question": "Where?", "options": {"A": "Liver", "B": "Lung"}, "answer": "A", "type": "location"}],
    }
    entry = {"image": "amos_1.nii.gz", "meta": {}, "labels": labels}
    (folder / "dataset.json").write_text(json.dumps({"validation": [entry]}), encoding="utf-8")
    return {"benchmark": "amos_mm", "dataset_dir": str(folder)}


def write_phantoms(folder):
    settings = PhantomSettings(in_plane_sizes=(64,), depth=(6, 6))
    phantom_command(1, 3, folder, settings)
    return {"benchmark": "m3d_vqa", "dataset_dir": str(folder), "gamma": 0.01, "max_slices": 4}


@pytest.mark.parametrize("write", [write_rad3d, write_amos, write_phantoms], ids=["rad3d", "amos_mm", "phantoms"])
@pytest.mark.parametrize("bundle", BUNDLES)
def test_official_files(evaluate, tmp_path, bundle, write):
    lines, metrics = evaluate(bundle=bundle, **WINDOWS[bundle], **write(tmp_path / "data"))
    assert {line["status"] for line in lines} == {"ok"}
    assert metrics["items"] == len(lines) > 0
    assert metrics["failed"] == 0
    source = {write_rad3d: "images", write_amos: "npy", write_phantoms: "NIfTI"}[write]
    assert metrics["slices"]["source"] == {source: 1}
    if write is write_amos:
        assert metrics["protocol"] == "meduni-report"
        report = next(line for line in lines if line["task"] == "report")
        assert report["prompt"] == find_protocol("meduni-report").report_prompt
        assert report["reference"].startswith("Clear.")
    if write is write_rad3d:
        assert lines[0]["prompt"] == find_protocol("meduni-vqa").prompt(
            "How has it changed?", {"A": "Grown", "B": "Stable"}
        )
        assert lines[0]["slices"]["total"] == 12


def test_answers_have_the_limit_of_their_task(evaluate, tmp_path):
    """Tiny models hardly ever end an answer, so that nearly all are cut; what ended by itself is told apart."""
    limits = {"closed_tokens": 2, "report_tokens": 5}
    lines, metrics = evaluate(**write_amos(tmp_path / "data"), **limits)
    assert {line["task"] for line in lines} == {"closed", "report"}
    for line in lines:
        limit = limits[f"{line['task']}_tokens"]
        assert line["settings"]["max_new_tokens"] == {"closed": 2, "report": 5}
        assert line["new_tokens"] <= limit
        assert line["truncated"] or line["new_tokens"] < limit
    assert metrics["truncated"] == sum(line["truncated"] for line in lines) > 0


@pytest.mark.parametrize("bundle", BUNDLES)
def test_lines_and_metrics(evaluate, m3d, tmp_path, bundle):
    lines, metrics = evaluate(bundle=bundle, dataset_dir=str(m3d), tau=0.5, temperature=0.05, **WINDOWS[bundle])
    assert len(lines) == len({line["id"] for line in lines}) == 2 * 2 * ROWS
    first = lines[0]
    assert first["question"] == "Which 0-1?"
    assert first["prompt"] == find_protocol("meduni-vqa").prompt("Which 0-1?", {"A": "Liver", "B": "Spleen"})
    assert first["reference"] == "Spleen"
    assert (first["reference_choice"], lines[1]["reference_choice"]) == ("B", None)
    assert (first["source"], first["order"]) == ("npy", "as stored")
    assert first["settings"]["benchmark"] == "m3d_vqa"
    assert first["settings"]["model"]["random_weights"] is True
    # only the first line of a volume has the stages that its questions share
    for number, line in enumerate(lines):
        assert (line["seconds"]["encode"] > 0) == (line["seconds"]["load"] > 0) == (number % (2 * ROWS) == 0)
        assert line["seconds"]["prefill"] > 0
    volumes = lines[:: 2 * ROWS]
    kept = {name: sum(one[name]["kept"] for one in volumes) for name in ("slices", "tokens")}
    total = sum(one["slices"]["total"] for one in volumes)
    unpruned = sum(one["tokens"]["unpruned"] for one in volumes)
    assert metrics["retention"]["slices"] == pytest.approx(kept["slices"] / total)
    assert metrics["retention"]["overall"] == pytest.approx(kept["tokens"] / unpruned)
    parts = metrics["retention"]["slices"] * metrics["retention"]["tokens_per_kept_slice"]
    assert metrics["retention"]["overall"] == pytest.approx(parts)
    assert 0 < metrics["retention"]["overall"] < 1
    assert list(metrics)[:4] == ["accuracy", "retention", "items", "failed"]
    scored = score(lines, "meduni-vqa")
    assert metrics["micro"] == scored["micro"]
    assert metrics["accuracy"] == scored["accuracy"]
    for name in ("protocol", "headline_rule", "versions", "seconds", "types", "macro", "majority_baseline"):
        assert metrics[name] is not None
    for name in ("model_id", "revision", "model_type", "dtype", "digest"):
        assert name in metrics["settings"]["model"]
    assert metrics["settings"]["pruner"]["tau"] == 0.5
    load, select = metrics["settings"]["preprocessing"]
    transforms = {one["name"]: one["arguments"] for one in (*load["transforms"], *select["transforms"])}
    assert transforms["InterSliceAnchorFilter"]["threshold"] == 0.025
    assert {"windows", "modality"} <= set(transforms["IntensityWindows"])
    assert "plane" in transforms["SlicePlane"]
    assert len(list((tmp_path / "out" / "records").glob("*.safetensors"))) == 2


def test_volumes_are_encoded_once_and_not_kept(evaluate, m3d, monkeypatch):
    import gc
    import weakref

    encoded = []
    encode = encoding.encode_and_prune_each

    def counting(*args, **more):
        # earlier volumes are freed before the next one is encoded
        gc.collect()
        assert all(reference() is None for reference in encoded[:-1])
        result = encode(*args, **more)
        encoded.append(weakref.ref(result[0]))
        return result

    monkeypatch.setattr(encoding, "encode_and_prune_each", counting)
    evaluate(dataset_dir=str(m3d))
    assert len(encoded) == 2


def test_failures_are_recorded_and_other_items_answered(evaluate, m3d):
    broken = m3d / "M3D_Cap/ct_case/000000/Axial.npy"
    broken.write_bytes(broken.read_bytes()[:1000])
    lines, metrics = evaluate(dataset_dir=str(m3d))
    failed, others = lines[: 2 * ROWS], lines[2 * ROWS :]
    assert {line["status"] for line in failed} == {"UnreadableVolumeError"}
    assert all("cut short" in line["error"] and line["answer"] == "" for line in failed)
    assert {line["status"] for line in others} == {"ok"}
    assert (metrics["items"], metrics["failed"]) == (4 * ROWS, 2 * ROWS)
    assert metrics["errors"] == {"UnreadableVolumeError": 2 * ROWS}
    assert metrics["volumes"] == 1


def test_missing_images_fail_one_by_one_if_kept(evaluate, m3d):
    (m3d / "M3D_Cap/ct_case/000001/Axial.npy").unlink()
    _, metrics = evaluate(dataset_dir=str(m3d), missing_images="keep")
    assert metrics["failed"] == 2 * ROWS


def test_failed_question_does_not_affect_others(evaluate, m3d, monkeypatch):
    answer = VolumeQA.answer_each

    def failing(self, asked):
        if any(question.startswith("Which 0-2") for _, question, _ in asked):
            raise MemoryError("no room")
        return answer(self, asked)

    monkeypatch.setattr(VolumeQA, "answer_each", failing)
    lines, metrics = evaluate(dataset_dir=str(m3d))
    assert [line["status"] for line in lines[: 2 * ROWS]] == ["ok", "ok", "MemoryError", "MemoryError", "ok", "ok"]
    assert metrics["errors"] == {"MemoryError": 2}
    # a failed question also has the record
    assert lines[2]["tokens"] == lines[0]["tokens"]


def test_fail_fast(evaluate, m3d, tmp_path):
    (m3d / "M3D_Cap/ct_case/000001/Axial.npy").write_bytes(b"")
    with pytest.raises(RuntimeError) as raised:
        evaluate(dataset_dir=str(m3d), fail_fast=True)
    error = raised.value
    while not isinstance(error, UnreadableVolumeError):
        error = error.__cause__  # None where there is no such error: the test then fails
    assert len(read_lines(tmp_path / "out")) == 2 * ROWS
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_second_run_asks_nothing_again(evaluate, m3d, monkeypatch):
    lines, metrics = evaluate(dataset_dir=str(m3d))
    monkeypatch.setattr(VolumeQA, "answer_each", lambda *_: pytest.fail("asked again"))
    again, same = evaluate(dataset_dir=str(m3d))
    assert again == lines
    assert same == metrics


def test_failed_items_are_asked_again_on_demand(evaluate, m3d):
    path = m3d / "M3D_Cap/ct_case/000000/Axial.npy"
    whole = path.read_bytes()
    path.write_bytes(b"")
    assert evaluate(dataset_dir=str(m3d))[1]["failed"] == 2 * ROWS
    path.write_bytes(whole)
    assert evaluate(dataset_dir=str(m3d))[1]["failed"] == 2 * ROWS
    lines, metrics = evaluate(dataset_dir=str(m3d), retry_failed=True)
    assert metrics["failed"] == 0
    assert lasting(lines) == lasting(evaluate("undisturbed", dataset_dir=str(m3d))[0])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tau": 0.5}, "settings.pruner.tau was 0.9 and is 0.5"),
        ({"protocol": "m3d-official"}, "m3d-official"),
        ({"max_new_tokens": 4}, "settings.engine.max_new_tokens"),
        ({"prompt#instruction": "Look."}, "settings.prompt.instruction"),
        ({"bundle": "medpruner_medgemma"}, "settings.model.model_type"),
        ({"task": "open"}, "settings.task"),
        ({"preprocessing#transforms#0#stage": "read"}, "settings.preprocessing"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_other_settings_are_refused(evaluate, m3d, change, named):
    lines, _ = evaluate(dataset_dir=str(m3d))
    with pytest.raises(Exception, match="Failed to evaluate") as raised:
        evaluate(dataset_dir=str(m3d), **change)
    error = root_cause(raised.value)
    assert isinstance(error, MixedRunError)
    assert named in str(error)
    assert lasting(evaluate(dataset_dir=str(m3d))[0]) == lasting(lines)  # and nothing was lost


def test_other_questions_are_refused(evaluate, m3d):
    evaluate(dataset_dir=str(m3d))
    table = m3d / "M3D_VQA_test.csv"
    table.write_text(table.read_text().replace("Which 1-3?", "Which one?"))
    with pytest.raises(Exception, match="Failed to evaluate") as raised:
        evaluate(dataset_dir=str(m3d))
    assert "items.digest" in str(raised.value.__cause__)


def test_batches_of_several_volumes_are_refused(repository, m3d, tmp_path):
    arguments = bundle_arguments(repository, tmp_path / "out", dataset_dir=str(m3d))
    workflow = ConfigWorkflow(workflow_type="infer", **{**arguments, "dataloader#batch_size": 2})
    workflow.initialize()
    assert isinstance(workflow.evaluator, BenchmarkEvaluator)
    with pytest.raises(SettingsError, match="batch size of 1"):
        workflow.evaluator.run()


def test_nothing_to_ask(evaluate, m3d):
    with pytest.raises(Exception, match=r"Failed to evaluate|instantiate") as raised:
        evaluate(dataset_dir=str(m3d), task="report")
    assert "no report questions" in str(root_cause(raised.value))


def test_hu_windows_for_voxels_without_units(evaluate, m3d):
    lines, _ = evaluate(bundle="medpruner_medgemma", dataset_dir=str(m3d))
    assert {line["status"] for line in lines} == {"IntensityUnitsError"}
    assert "windows='auto'" in lines[0]["error"]
