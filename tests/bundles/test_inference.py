# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The bundle from the command line, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from monai.bundle import ConfigWorkflow, run, verify_net_in_out
from safetensors import safe_open

from monai_medpruner import errors
from monai_medpruner.transforms import (
    CheckVolume,
    HUWindows,
    InterSliceAnchorFilter,
    LoadVolume,
    PercentileWindow,
    SlicePlane,
)

STAGES = ["load", "filter", "encode", "select", "prefill", "decode"]
QUESTION = "Is there a pleural effusion?"


@pytest.fixture
def ask(repository, tmp_path):
    """Return a function: overrides -> the finished process and the lines of its answer file."""
    bundle = repository / "bundles" / "medpruner_qwen3vl"

    def run(**overrides):
        settings = {"model_id": "tiny", "output_dir": str(tmp_path / "out"), "max_new_tokens": "4", **overrides}
        command = [sys.executable, "-m", "monai.bundle", "run"]
        command += ["--config_file", str(bundle / "configs" / "inference.json"), "--bundle_root", str(bundle)]
        for name, value in settings.items():
            command += [f"--{name}", str(value)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
        process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        answers = tmp_path / "out" / "answers.jsonl"
        lines = [json.loads(line) for line in answers.read_text().splitlines()] if answers.exists() else []
        return process, lines

    return run


def expected_slices(path, scale, gamma=0.025):
    """The kept slices by direct calls of the transforms, and the depth."""
    volume = SlicePlane()(CheckVolume()(LoadVolume()(path)))
    return InterSliceAnchorFilter(gamma).kept_slices(scale(volume)), volume.shape[-1]


def check_line(line, image, kept, total, tmp_path):
    """Every field of an answer line against what is known, and against the record beside it."""
    assert line["image"] == str(image)
    assert line["question"] == QUESTION
    assert isinstance(line["answer"], str)
    assert line["slices"] == {"total": total, "kept": len(kept), "indices": kept}
    per_slice = line["tokens"]["per_slice"]
    assert len(per_slice) == len(kept)
    assert sum(per_slice) == line["tokens"]["kept"]
    assert list(line["seconds"]) == STAGES
    assert all(value > 0 for value in line["seconds"].values())
    assert line["peak_memory_mb"] > 100
    assert line["settings"]["random_weights"] is True
    assert line["settings"]["model_id"] == "tiny"
    assert line["versions"]["monai"]
    assert all(isinstance(note, str) for note in line["notes"])
    with safe_open(tmp_path / "out" / "records" / f"{line['id']}.safetensors", "pt") as file:
        record = {name: file.get_tensor(name) for name in file.keys()}
        facts = {name: json.loads(value) for name, value in file.metadata().items()}
    assert record["slice_indices"].tolist() == kept
    assert facts["total_slices"] == total
    assert facts["settings"] == line["settings"]
    sizes = record["grids"].prod(1)
    assert line["tokens"]["unpruned"] == total * sizes[0]
    keep = record["primary"] | record["contextual"]
    assert [int(part.sum()) for part in keep.split(sizes.tolist())] == per_slice
    start = 0
    for size in sizes.tolist():
        carrier, own = record["carrier"][start : start + size], keep[start : start + size]
        assert own[carrier].all()
        assert torch.equal(carrier == torch.arange(size), own)
        start += size


@pytest.mark.parametrize(
    ("name", "scale", "options"),
    [
        ("ct_torso_nifti/ct.nii.gz", HUWindows("soft_tissue"), {}),
        ("ct_torso_dicom", HUWindows("soft_tissue"), {}),
        ("mr_torso_nifti/mr_small.nii.gz", PercentileWindow(), {"modality": "mr"}),
        ("ct_head_tilted_dicom", HUWindows("soft_tissue"), {}),
    ],
    ids=["NIfTI", "DICOM", "MR", "tilted"],
)
def test_real_volumes(ask, shared_data, tmp_path, name, scale, options):
    image = shared_data(name)
    process, lines = ask(image=image, question=QUESTION, tau=0.5, temperature=0.05, **options)
    assert process.returncode == 0, process.stderr[-2000:]
    assert "volumes" in process.stderr  # the progress bar
    kept, total = expected_slices(image, scale)
    assert len(lines) == 1
    check_line(lines[0], image, kept, total, tmp_path)
    assert lines[0]["tokens"]["kept"] < lines[0]["tokens"]["unpruned"]
    if name == "ct_head_tilted_dicom":
        assert total == 28
        assert any("tilt" in note for note in lines[0]["notes"])


def test_overrides(ask, shared_data, tmp_path):
    """Range, plane, both stages off; text that no command line would carry."""
    image = shared_data("ct_torso_nifti/ct_small.nii.gz")
    texts = ["$print(1) or 5", "@gamma", "Lesion #3, series 2", "%foo.json", "Größe {x}?"]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts))
    process, lines = ask(
        image=image, questions_file=questions, slices="10:14", plane="coronal", gamma="none", pruner="none"
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert [line["question"] for line in lines] == texts
    first = lines[0]
    volume = SlicePlane("coronal")(LoadVolume()(image))
    assert first["slices"] == {"total": volume.shape[-1], "kept": 4, "indices": [10, 11, 12, 13]}
    tokens = first["tokens"]["per_slice"][0]
    assert first["tokens"] == {"unpruned": tokens * volume.shape[-1], "kept": 4 * tokens, "per_slice": [tokens] * 4}
    assert all(line["seconds"]["encode"] == line["seconds"]["load"] == 0 for line in lines[1:])
    assert len({line["id"] for line in lines}) == 1


def test_lists_of_images_and_questions(ask, shared_data, tmp_path):
    small, mr = shared_data("ct_torso_nifti/ct_small.nii.gz"), shared_data("mr_torso_nifti/mr_small.nii.gz")
    table = tmp_path / "images.csv"
    table.write_text(f"image,question\n{small},Which organ?\n{mr},\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "answers.jsonl").write_text("earlier\n")
    process, lines = ask(image=table, question="['Which plane?','Which phase?']", windows="percentile", modality="mr")
    assert process.returncode == 0, process.stderr[-2000:]
    assert [(line["image"], line["question"]) for line in lines] == [
        (str(small), "Which organ?"),
        (str(small), "Which plane?"),
        (str(small), "Which phase?"),
        (str(mr), "Which plane?"),
        (str(mr), "Which phase?"),
    ]
    assert len({line["id"] for line in lines}) == 2
    kept_aside = list((tmp_path / "out").glob("answers-*.jsonl"))
    assert [path.read_text() for path in kept_aside] == ["earlier\n"]


def test_a_question_is_never_evaluated(ask, shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "$__import__('os').system('touch executed')"
    process, lines = ask(image=shared_data("ct_torso_nifti/ct_small.nii.gz"), question=text)
    assert process.returncode == 0, process.stderr[-2000:]
    assert [line["question"] for line in lines] == [text]
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("question", ["Lesion #3, series 2", "left, right"])
def test_what_the_command_line_changed_is_refused(ask, shared_data, question):
    process, lines = ask(image=shared_data("ct_torso_nifti/ct_small.nii.gz"), question=question)
    assert process.returncode != 0
    assert "SettingsError" in process.stderr
    assert "--questions_file" in process.stderr
    assert not lines


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        ({"question": 12}, errors.SettingsError),
        ({"question": ""}, errors.QuestionError),
        ({"image": "/no/such/file.nii.gz"}, errors.UnreadableVolumeError),
        ({"image": ""}, errors.SettingsError),
        ({"modality": "mr", "windows": "lung"}, errors.MedPrunerError),
        ({"tau": 0}, errors.SettingsError),
        ({"pruner": "nuclear"}, errors.SettingsError),
        ({"slices": "200:300"}, errors.SettingsError),
        ({"plane": "oblique"}, errors.SettingsError),
        ({"gamma": -1}, errors.SettingsError),
        ({"model_id": "/no/such/checkpoint"}, errors.CheckpointError),
    ],
    ids=str,
)
def test_refusals(repository, shared_data, tmp_path, overrides, error):
    bundle = repository / "bundles" / "medpruner_qwen3vl"
    image = str(shared_data("ct_torso_nifti/ct_small.nii.gz"))
    settings = {"image": image, "question": QUESTION, "model_id": "tiny", "output_dir": str(tmp_path), **overrides}
    with pytest.raises(Exception) as raised:  # noqa: PT011 - MONAI wraps the typed error, which is looked for below
        run(config_file=str(bundle / "configs" / "inference.json"), bundle_root=str(bundle), **settings)
    chain = [raised.value]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    assert any(isinstance(link, error) for link in chain), chain
    assert not (tmp_path / "answers.jsonl").exists() or not (tmp_path / "answers.jsonl").read_text()


def test_check_properties(repository):
    """All properties of an inference bundle, with no image given."""
    bundle = repository / "bundles" / "medpruner_qwen3vl"
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        workflow_type="infer",
        bundle_root=str(bundle),
        model_id="tiny",
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert len(workflow.dataset) == 0


def test_verify_net_in_out(repository):
    bundle = repository / "bundles" / "medpruner_qwen3vl"
    arguments = {
        "net_id": "network_def",
        "meta_file": str(bundle / "configs" / "metadata.json"),
        "config_file": str(bundle / "configs" / "inference.json"),
        "model_id": "tiny",
    }
    channels = {"_meta_::network_data_format::outputs::pred::num_channels": 48}
    verify_net_in_out(**arguments, device="cpu", p=1, n=3, any=2, **channels)
    with pytest.raises(ValueError, match="channel"):
        verify_net_in_out(**arguments, device="cpu", p=1, n=3, any=2)
