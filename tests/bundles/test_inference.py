# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Inference with the bundles, run from the command line as by a user."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run, verify_net_in_out
from safetensors import safe_open

from monai_medpruner import errors
from monai_medpruner.transforms import (
    CheckVolume,
    HUWindows,
    InterSliceAnchorFilter,
    LoadVolume,
    PercentileWindow,
    SliceLimit,
    SliceMinMax,
    SlicePlane,
)

STAGES = ["load", "filter", "encode", "select", "prefill", "decode"]
QUESTION = "Is there a pleural effusion?"
QWEN, MEDGEMMA, HULUMED = "medpruner_qwen3vl", "medpruner_medgemma", "medpruner_hulumed"
# the bundle contains its models
PHANTOM = "medpruner_phantom"
# each bundle's intensity scaling of a CT, and its limit of slices after the filter
SCALES = {QWEN: HUWindows("soft_tissue"), MEDGEMMA: HUWindows("medgemma"), HULUMED: SliceMinMax()}
LIMITS = {QWEN: SliceLimit(), MEDGEMMA: SliceLimit(85, "medgemma"), HULUMED: SliceLimit(180)}
# of the tiny models
CHANNELS = {QWEN: 64, MEDGEMMA: 32, HULUMED: 48}


def arguments(repository, tmp_path, bundle, overrides):
    """Return the arguments of the run command for a bundle with overrides."""
    folder = repository / "bundles" / bundle
    paths = {"config_file": str(folder / "configs" / "inference.json"), "bundle_root": str(folder)}
    return {**paths, "model_id": "tiny", "output_dir": str(tmp_path / "out"), "max_new_tokens": 4, **overrides}


def answer_lines(tmp_path):
    answers = tmp_path / "out" / "answers.jsonl"
    return [json.loads(line) for line in answers.read_text().splitlines()] if answers.exists() else []


@pytest.fixture
def ask(repository, tmp_path):
    """Return a function: bundle and overrides -> the finished process and the lines of its answer file."""

    def run(bundle=QWEN, **overrides):
        command = [sys.executable, "-m", "monai.bundle", "run"]
        for name, value in arguments(repository, tmp_path, bundle, overrides).items():
            command += [f"--{name}", str(value)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
        process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        return process, answer_lines(tmp_path)

    return run


@pytest.fixture
def ask_here(repository, tmp_path):
    """Return a function: bundle and overrides -> the lines of the answer file, run in this process."""

    def ask(bundle=QWEN, **overrides):
        run(**arguments(repository, tmp_path, bundle, overrides))
        return answer_lines(tmp_path)

    return ask


def expected_slices(path, scale, limit, gamma=0.025):
    """Return the kept slices from direct calls of the transforms, and the depth."""
    volume = SlicePlane()(CheckVolume()(LoadVolume()(path)))
    passed = InterSliceAnchorFilter(gamma).kept_slices(scale(volume))
    return [passed[index] for index in limit.kept_slices(volume[..., : len(passed)])], volume.shape[-1]


def recorded(line, name):
    """Return the recorded arguments of a transform in an answer line."""
    stages = line["settings"]["preprocessing"]
    (found,) = [one["arguments"] for stage in stages for one in stage["transforms"] if one["name"] == name]
    return found


def check_line(line, image, kept, total, tmp_path):
    """Check every field of an answer line against known values and the study's record."""
    assert line["image"] == str(image)
    assert line["question"] == QUESTION
    assert isinstance(line["answer"], str)
    assert line["slices"].pop("largest_gap_mm") > 0
    assert line["slices"] == {"total": total, "kept": len(kept), "indices": kept}
    per_slice = line["tokens"]["per_slice"]
    assert len(per_slice) == len(kept)
    assert sum(per_slice) == line["tokens"]["kept"]
    assert list(line["seconds"]) == STAGES
    assert all(value > 0 for value in line["seconds"].values())
    assert line["peak_memory_mb"] > 100
    assert line["settings"]["model"]["random_weights"] is True
    assert line["settings"]["model"]["model_id"] == "tiny"
    assert line["versions"]["monai"]
    assert all(isinstance(note, str) for note in line["notes"])
    with safe_open(tmp_path / "out" / "records" / f"{line['volume_id']}.safetensors", "pt") as file:
        record = {name: file.get_tensor(name) for name in file.keys()}
        texts = file.metadata()
        facts = {name: json.loads(value) for name, value in texts.items() if name not in ("format", "sha256")}
    assert record["slice_indices"].tolist() == kept
    assert facts["total_slices"] == total
    engine = {name: line["settings"][name] for name in ("prompt", "engine")}
    assert {**facts["settings"], **engine} == line["settings"]
    sizes = record["grids"].prod(1)
    assert line["tokens"]["unpruned"] == total * sizes[0]
    keep = record["primary"] | record["contextual"]
    assert [int(part.sum()) for part in keep.split(sizes.tolist())] == per_slice
    start = 0
    for size in sizes.tolist():
        merged_into, own = record["merged_into"][start : start + size], keep[start : start + size]
        assert own[merged_into].all()
        assert torch.equal(merged_into == torch.arange(size), own)
        start += size


@pytest.mark.parametrize("name", ["ct_torso_nifti/ct.nii.gz", "ct_torso_dicom"], ids=["NIfTI", "DICOM"])
@pytest.mark.parametrize("bundle", SCALES)
def test_real_volumes(ask, shared_data, tmp_path, bundle, name):
    image = shared_data(name)
    process, lines = ask(bundle, image=image, question=QUESTION, tau=0.5, temperature=0.05)
    assert process.returncode == 0, process.stderr[-2000:]
    assert "volumes" in process.stderr  # the progress bar
    kept, total = expected_slices(image, SCALES[bundle], LIMITS[bundle])
    assert len(lines) == 1
    check_line(lines[0], image, kept, total, tmp_path)
    assert lines[0]["tokens"]["kept"] < lines[0]["tokens"]["unpruned"]


@pytest.mark.parametrize(
    ("bundle", "options", "scale"),
    [
        (QWEN, {}, PercentileWindow()),
        (MEDGEMMA, {"windows": "percentile"}, PercentileWindow()),
        (HULUMED, {}, SliceMinMax()),
    ],
    ids=[QWEN, MEDGEMMA, HULUMED],
)
def test_mr_and_a_limit_of_slices(ask_here, shared_data, tmp_path, bundle, options, scale):
    image = shared_data("mr_torso_nifti/mr_small.nii.gz")
    options = {**options, "modality": "mr", "gamma": 0.001, "max_slices": 3}
    (line,) = ask_here(bundle, image=str(image), question=QUESTION, **options)
    kept, total = expected_slices(image, scale, SliceLimit(3, LIMITS[bundle].rule), gamma=0.001)
    check_line(line, image, kept, total, tmp_path)
    assert len(kept) == 3 < total
    assert any(note.endswith("slices passed the filter, 3 of them were taken (max_slices).") for note in line["notes"])
    assert recorded(line, "SliceLimit")["max_slices"] == 3
    assert recorded(line, "SliceLimit")["rule"] == LIMITS[bundle].rule


def test_tilted(ask_here, shared_data, tmp_path):
    image = shared_data("ct_head_tilted_dicom")
    (line,) = ask_here(image=str(image), question=QUESTION)
    kept, total = expected_slices(image, SCALES[QWEN], LIMITS[QWEN])
    check_line(line, image, kept, total, tmp_path)
    assert total == 28
    assert any("tilt" in note for note in line["notes"])


def test_token_budget(ask_here, shared_data):
    """Slices share the budget of tokens before pruning, and the answer file records it."""
    options = {"slices": "10:14", "gamma": "none", "pruner": "none"}
    image = str(shared_data("ct_torso_nifti/ct.nii.gz"))
    (free,) = ask_here(image=image, question=QUESTION, **options)
    (line,) = ask_here(image=image, question=QUESTION, token_budget=20, **options)
    assert 10 < line["tokens"]["kept"] <= 20 < free["tokens"]["kept"]
    assert len(set(line["tokens"]["per_slice"])) == 1
    assert [one["settings"]["model"]["token_budget"] for one in (line, free)] == [20, None]
    assert line["settings"]["pruner"] is None


@pytest.mark.parametrize("bundle", [QWEN, MEDGEMMA])
def test_crop(ask_here, shared_data, tmp_path, bundle):
    """The same slices, fewer voxels of each, and the share of tokens in whole slices."""
    image = str(shared_data("ct_torso_dicom"))
    (whole,) = ask_here(bundle, image=image, question=QUESTION)
    (line,) = ask_here(bundle, image=image, question=QUESTION, crop="body")
    assert recorded(whole, "CropBody")["crop"] is None
    settings = recorded(line, "CropBody")
    assert (settings["crop"], settings["square"]) == ("body", bundle == MEDGEMMA)
    assert line["slices"] == whole["slices"]
    assert line["tokens"]["unpruned"] == whole["tokens"]["unpruned"]
    with safe_open(tmp_path / "out" / "records" / f"{line['record']}.safetensors", "pt") as file:
        crop = json.loads(file.metadata()["crop"])
        grids = file.get_tensor("grids")
    (top, bottom), _columns = crop
    # a square around the trunk and both arms is the whole slice
    assert bundle == MEDGEMMA or bottom - top < 300
    assert (grids[0].prod() < whole["tokens"]["unpruned"] / 20) == (bundle == QWEN)


@pytest.mark.parametrize(
    ("bundle", "content"),
    [
        (QWEN, ["Slice 3:", None, "Slice 7:", None, "Is {it} so?"]),
        (
            MEDGEMMA,
            [
                "You are an instructor teaching medical students. You are analyzing a contiguous block of CT slices. "
                "Please review the slices provided below carefully.",
                *(None, "SLICE 3", None, "SLICE 7", "\n\nIs {it} so?"),
            ],
        ),
        (HULUMED, ["<image>,<image>\nIs {it} so?"]),
    ],
    ids=[QWEN, MEDGEMMA, HULUMED],
)
def test_prompt(repository, bundle, content):
    """The prompt is that of the model's authors; None stands for an image."""
    parser = ConfigParser(ConfigParser.load_config_file(repository / f"bundles/{bundle}/configs/inference.json"))
    parts = parser.get_parsed_content("prompt").content([3, 7], "Is {it} so?", "<image>")
    assert [part.get("text") for part in parts] == content
    assert all((part["type"] == "image") is ("text" not in part) for part in parts)


def test_overrides(ask, shared_data, tmp_path):
    """Range, plane, both stages off, and a text that a command line would change."""
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
    gap = 3.0 * (volume.shape[-1] - 1 - 13)  # slices 3 mm apart, to the end of the volume
    kept = [10, 11, 12, 13]
    slices = {"total": volume.shape[-1], "range": 4, "kept": 4, "indices": kept, "largest_gap_mm": gap}
    assert first["slices"] == slices
    tokens = first["tokens"]["per_slice"][0]
    assert first["tokens"] == {"unpruned": 4 * tokens, "kept": 4 * tokens, "per_slice": [tokens] * 4}
    assert all(line["seconds"]["encode"] == line["seconds"]["load"] == 0 for line in lines[1:])
    assert len({line["volume_id"] for line in lines}) == 1
    assert len({line["id"] for line in lines}) == len(texts)


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
    assert len({line["volume_id"] for line in lines}) == 2
    assert len({line["id"] for line in lines}) == 5
    kept_aside = list((tmp_path / "out").glob("answers-*.jsonl"))
    assert [path.read_text() for path in kept_aside] == ["earlier\n"]


def test_question_is_never_evaluated(ask, shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "$__import__('os').system('touch executed')"
    process, lines = ask(image=shared_data("ct_torso_nifti/ct_small.nii.gz"), question=text)
    assert process.returncode != 0
    assert "SettingsError: MONAI would not read --question as the text that was given" in process.stderr
    assert "--questions_file" in process.stderr
    assert not lines
    assert not (tmp_path / "executed").exists()


def test_path_with_a_number_sign_is_refused(ask, shared_data, tmp_path):
    process, _ = ask(
        image=shared_data("ct_torso_nifti/ct_small.nii.gz"), question=QUESTION, output_dir=tmp_path / "a#1"
    )
    assert process.returncode != 0
    assert "SettingsError: MONAI would not read --output_dir as the text" in process.stderr
    assert not list(tmp_path.iterdir())


def test_pruner_from_the_command_line(ask, shared_data):
    """Its name, and any of its fields; the text "none" is null."""
    image = shared_data("ct_torso_nifti/ct_small.nii.gz")
    options = {"image": image, "question": QUESTION, "slices": "3:7", "gamma": "none"}
    fields = {"token_pruner::min_tokens": 2, "token_pruner::contextual_ratio": 0}
    fields |= {"pruners::nucleus::max_importance": 2.5, "token_pruner::max_importance": "none"}
    process, (line,) = ask(**options, tau=0.01, **fields)
    assert process.returncode == 0, process.stderr[-2000:]
    pruner = line["settings"]["pruner"]
    chosen = {name: pruner[name] for name in ("name", "tau", "min_tokens", "contextual_ratio")}
    assert chosen == {"name": "nucleus", "tau": 0.01, "min_tokens": 2, "contextual_ratio": 0}
    assert pruner["max_importance"] is None
    assert set(line["tokens"]["per_slice"]) == {2}
    process, (line,) = ask(**options, pruner="random_tokens", **{"token_pruner::keep_ratio": 0.5})
    assert process.returncode == 0, process.stderr[-2000:]
    assert (line["settings"]["pruner"]["name"], line["settings"]["pruner"]["keep_ratio"]) == ("random_tokens", 0.5)


@pytest.mark.parametrize("question", ["Lesion #3, series 2", "left, right"])
def test_changed_question_is_refused(ask, shared_data, question):
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
        ({"token_pruner::pool": 2}, errors.SettingsError),
        ({"slices": "200:300"}, errors.SettingsError),
        ({"plane": "oblique"}, errors.SettingsError),
        ({"gamma": -1}, errors.SettingsError),
        ({"model_id": "/no/such/checkpoint"}, errors.CheckpointError),
        ({"max_slices": 0}, errors.SettingsError),
        ({"slice_rule": "random"}, errors.SettingsError),
        ({"token_budget": 0}, errors.SettingsError),
        ({"bundle": MEDGEMMA, "token_budget": 1000}, errors.SettingsError),
        ({"bundle": MEDGEMMA, "modality": "mr"}, errors.IntensityUnitsError),
        # no checkpoint was converted
        ({"bundle": HULUMED, "model_id": "$@bundle_root + '/models/Hulu-Med-7B'"}, errors.CheckpointError),
    ],
    ids=str,
)
def test_refusals(repository, shared_data, tmp_path, overrides, error):
    overrides = dict(overrides)
    image = str(shared_data("ct_torso_nifti/ct_small.nii.gz"))
    settings = arguments(repository, tmp_path, overrides.pop("bundle", QWEN), {"image": image, "question": QUESTION})
    with pytest.raises(Exception) as raised:  # noqa: PT011 - MONAI wraps the typed error, which is looked for below
        run(**{**settings, **overrides})
    chain = [raised.value]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    assert any(isinstance(link, error) for link in chain), chain
    assert answer_lines(tmp_path) == []


@pytest.mark.parametrize("bundle", [*SCALES, PHANTOM])
def test_check_properties(repository, bundle):
    """All properties of an inference bundle, with no image given."""
    folder = repository / "bundles" / bundle
    workflow = ConfigWorkflow(
        config_file=str(folder / "configs" / "inference.json"),
        workflow_type="infer",
        bundle_root=str(folder),
        model_id="tiny",
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert len(workflow.dataset) == 0


@pytest.mark.parametrize("bundle", SCALES)
def test_verify_net_in_out(repository, bundle):
    folder = repository / "bundles" / bundle
    arguments = {
        "net_id": "network_def",
        "meta_file": str(folder / "configs" / "metadata.json"),
        "config_file": str(folder / "configs" / "inference.json"),
        "model_id": "tiny",
    }
    channels = {"_meta_::network_data_format::outputs::pred::num_channels": CHANNELS[bundle]}
    verify_net_in_out(**arguments, device="cpu", p=1, n=3, any=2, **channels)
    with pytest.raises(ValueError, match="channel"):
        verify_net_in_out(**arguments, device="cpu", p=1, n=3, any=2)


def test_verify_net_in_out_of_the_phantom_bundle(repository):
    """With the bundle's own model, as described in its metadata."""
    folder = repository / "bundles" / PHANTOM
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(folder / "configs" / "metadata.json"),
        config_file=str(folder / "configs" / "inference.json"),
        bundle_root=str(folder),
        device="cpu",
        any=2,
    )
