# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Answers and overlays without a server."""

from __future__ import annotations

import json
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from label_server import TINY_CONF, write_study

from monai_medpruner.cli import main as command_line
from monai_medpruner.errors import RequestError
from monai_medpruner.label.configuration import configuration
from monai_medpruner.label.overlay import is_sheared
from monai_medpruner.label.parameters import OverlayParameters
from monai_medpruner.label.study_model import StudyModel

ENCODING = ("load", "filter", "encode", "select")


@pytest.fixture(scope="module")
def model():
    return StudyModel.from_configuration(configuration(TINY_CONF))


@pytest.fixture
def study(tmp_path, request):
    """A study of each test's own: one of the same content would be known already."""
    return write_study(tmp_path / "study.nii.gz", seed=zlib.crc32(request.node.name.encode()))


def test_answers_are_those_of_the_bundle(model, study, tmp_path):
    """Compared with the bundle's run, which has neither cache nor conversations."""
    questions = ["Is there a lesion?", "Which organ? $x", "Is there a lesion?"]
    answers = [model.ask(study, text) for text in questions]
    words = ["--image", str(study), "--model", "tiny", "--question", *questions[:2]]
    for name, value in TINY_CONF.items():
        words += [f"--{name}", value] if name != "model" else []
    command_line.main(["ask", *words, "--output_dir", str(tmp_path / "out")])
    lines = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    for line, answer in zip(lines, answers, strict=False):
        for key in ("answer", "slices", "tokens", "notes"):
            assert answer[key] == line[key], key
        assert answer["settings"] == line["settings"]
        assert answer["study"] == line["volume_id"]
    assert answers[2]["answer"] == answers[0]["answer"]


def test_only_the_first_question_is_encoded(model, study):
    first = model.ask(study, "Is there a lesion?")
    assert all(first["seconds"][stage] > 0 for stage in (*ENCODING, "prefill", "decode"))
    turn = [("Is there a lesion?", "Yes.")]
    for history in ([], turn):
        later = model.ask(study, "Where?", history)
        assert [later["seconds"][stage] for stage in ENCODING] == [0.0] * 4
        assert later["seconds"]["prefill"] > 0
        assert later["record"] == first["record"]


@pytest.mark.parametrize("changed", [{"tau": 0.2}, {"temperature": 0.002}, {"gamma": 0.4}, {"tau": 0.9, "gamma": 0.0}])
def test_settings_of_a_request(model, study, changed):
    """The answer is that of a server started with these settings. The server's settings do not change."""
    before = model.ask(study, "Is it?")
    answer = model.ask(study, "Is it?", settings=changed)
    conf = {**TINY_CONF, **{name: str(value) for name, value in changed.items()}}
    started = StudyModel.from_configuration(configuration(conf)).ask(study, "Is it?")
    assert {**answer, "seconds": {}} == {**started, "seconds": {}}
    assert answer["record"] != before["record"]
    assert answer["seconds"]["encode"] > 0
    assert model.ask(study, "Is it?", settings=changed)["seconds"]["encode"] == 0
    after = model.ask(study, "Is it?")
    assert {**after, "seconds": {}} == {**before, "seconds": {}}
    assert after["seconds"]["encode"] == 0


@pytest.mark.parametrize("changed", [{"tau": 0.0}, {"tau": 1.5}, {"temperature": -1.0}, {"gamma": -0.1}], ids=str)
def test_settings_outside_their_range(model, study, changed):
    with pytest.raises(RequestError, match=r"must (lie|be)"):
        model.ask(study, "Is it?", settings=changed)


def test_server_without_pruning_has_no_pruning_settings(study):
    model = StudyModel.from_configuration(configuration({**TINY_CONF, "pruner": "none", "gamma": "none"}))
    assert model.adjustable == {}
    assert model.ask(study, "Is it?")["slices"]["kept"] == 12
    with pytest.raises(RequestError, match="no tau to change"):
        model.ask(study, "Is it?", settings={"tau": 0.5})


def test_requests_run_one_at_a_time(model, study, monkeypatch):
    inside, together, encoded = [], [], []

    def alone(method):
        def call(*arguments):
            inside.append(method)
            together.append(len(inside))
            encoded.append(method.__name__ == "encode_each")
            time.sleep(0.02)
            result = method(*arguments)
            inside.remove(method)
            return result

        return call

    for owner, name in ((model.encoder, "encode_each"), (model.network, "answer")):
        monkeypatch.setattr(owner, name, alone(getattr(owner, name)))
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(lambda index: model.ask(study, f"{index}?"), range(8)))
    assert together == [1] * 9
    assert sum(encoded) == 1


@pytest.mark.parametrize("extension", [".nii.gz", ".nii", ".nrrd"])
def test_overlay_of_a_flipped_study(model, study, tmp_path, extension):
    """Compared with record and file, token by token, without the transforms of this package."""
    answer = model.ask(study, "Is there a lesion?")
    file, described = model.write_overlay(study, OverlayParameters(extension), tmp_path)
    source = nib.load(study)
    labels = read_labels(file)
    assert labels.shape == source.shape
    if extension != ".nrrd":
        assert np.array_equal(nib.load(file).affine, source.affine)
        assert labels.dtype == np.uint8
    same_place(file, study)
    assert described["record"] == answer["record"]
    # axial slices in radiological convention: rows to posterior, columns to left, depth to superior. In this file the
    # first axis runs to anterior, the second to left, the third to inferior
    viewed = labels[::-1, :, ::-1]
    check_labels(viewed, answer["record"])
    assert described["label_names"] == {name: value for name, value in LABELS.items() if value in viewed}


LABELS = {"kept slice": 1, "kept token": 2, "contextual token": 3}


def check_labels(viewed, record):
    """Compare every voxel of every slice with the record; ``viewed`` is (rows, columns, slices)."""
    kept = {entry["index"]: entry for entry in record}
    assert 0 < len(kept) < viewed.shape[2]
    for index in range(viewed.shape[2]):
        if index not in kept:
            assert not viewed[..., index].any()
            continue
        entry = kept[index]
        rows, columns = entry["grid"]
        expected = np.ones((rows, columns), np.uint8)
        for name, value in (("primary", 2), ("contextual", 3)):
            for token in entry[name]:
                expected[token // columns, token % columns] = value
        height, width = viewed.shape[:2]
        for row in range(rows):
            for column in range(columns):
                # the voxel at the token's center
                voxel = viewed[int((row + 0.5) * height / rows), int((column + 0.5) * width / columns), index]
                assert voxel == expected[row, column]
        sizes = np.bincount(viewed[..., index].ravel(), minlength=4) / viewed[..., index].size
        shares = np.bincount(expected.ravel(), minlength=4) / expected.size
        assert np.abs(sizes - shares).max() < 0.1


def read_labels(file):
    if file.suffix == ".nrrd":
        return np.asarray(itk.array_from_image(itk.imread(str(file)))).transpose(2, 1, 0)
    return np.asarray(nib.load(file).dataobj)


def same_place(file, study):
    """ITK, which 3D Slicer uses, gives both the same geometry."""
    one, other = itk.imread(str(file)), itk.imread(str(study))
    assert np.allclose(np.array(one.GetOrigin()), np.array(other.GetOrigin()), atol=1e-4)
    assert np.allclose(np.array(one.GetSpacing()), np.array(other.GetSpacing()), atol=1e-4)
    assert np.allclose(
        itk.array_from_matrix(one.GetDirection()), itk.array_from_matrix(other.GetDirection()), atol=1e-4
    )


@pytest.mark.parametrize("name", ["ct_torso_dicom", "ct_head_tilted_dicom"])
def test_overlay_of_a_dicom_series(model, shared_data, tmp_path, name):
    pydicom = pytest.importorskip("pydicom")
    folder = shared_data(name)
    file, described = model.write_overlay(folder, OverlayParameters(), tmp_path)
    headers = [pydicom.dcmread(one, stop_before_pixels=True) for one in folder.iterdir()]
    normal = np.cross(*np.reshape(headers[0].ImageOrientationPatient, (2, 3)).astype(float))
    headers.sort(key=lambda header: float(np.dot(normal, header.ImagePositionPatient)))
    image = nib.load(file)
    assert image.shape == (headers[0].Columns, headers[0].Rows, len(headers))
    for index in (0, len(headers) - 1):
        placed = image.affine @ [0, 0, index, 1]
        assert np.allclose(placed[:3] * [-1, -1, 1], headers[index].ImagePositionPatient, atol=1e-3)
    # columns to left, rows to posterior, slices to superior: radiological convention, except for the order of the axes
    check_labels(np.asarray(image.dataobj).transpose(1, 0, 2), described["record"])
    tilted = name == "ct_head_tilted_dicom"
    assert is_sheared(image.affine) is tilted
    assert any("sheared" in note for note in described["notes"]) is tilted
    if tilted:
        nrrd, _ = model.write_overlay(folder, OverlayParameters(".nrrd"), tmp_path)
        assert np.array_equal(read_labels(nrrd), np.asarray(image.dataobj))


def test_reported_settings_have_no_path(study, tmp_path):
    from monai_medpruner.testing import save_tiny_checkpoint

    folder = save_tiny_checkpoint("qwen3_vl", tmp_path / "my_model")
    model = StudyModel.from_configuration(configuration({"model": str(folder)}))
    answer = model.ask(study, "Is it?")
    assert answer["settings"]["model"]["model_id"] == "my_model"
    assert str(tmp_path / "my_model") not in json.dumps(answer)


def test_study_larger_than_the_cache_is_answered(study):
    model = StudyModel.from_configuration(configuration({**TINY_CONF, "cache_mb": "0"}))
    answers = [model.ask(Path(study), "Is it?") for _ in range(2)]
    assert answers[0]["answer"] == answers[1]["answer"]
    assert all(answer["seconds"]["encode"] > 0 for answer in answers)


def test_a_folder_serves_the_next_server(study, tmp_path):
    """A server that starts anew finds what an earlier one encoded, and says so; its answers are the same."""
    conf = {**TINY_CONF, "cache_dir": str(tmp_path / "cache")}
    first = StudyModel.from_configuration(configuration(conf)).ask(study, "Is it?")
    assert all(first["seconds"][stage] > 0 for stage in ENCODING)
    later = StudyModel.from_configuration(configuration(conf)).ask(study, "Is it?")
    assert all(later["seconds"][stage] == 0 for stage in ENCODING)
    (note,) = (note for note in later["notes"] if "study cache" in note)
    later["notes"].remove(note)
    assert {**later, "seconds": {}} == {**first, "seconds": {}}


def test_a_study_is_known_by_its_content(model, study, tmp_path):
    """Not by its name or place; another study of the same name is another study."""
    first = model.ask(study, "Is it?")
    moved = tmp_path / "elsewhere.nii.gz"
    moved.write_bytes(study.read_bytes())
    later = model.ask(moved, "Is it?")
    assert later["seconds"]["encode"] == 0
    assert {**later, "seconds": {}} == {**first, "seconds": {}}
    write_study(study, seed=1)
    other = model.ask(study, "Is it?")
    assert other["seconds"]["encode"] > 0
    assert other["study"] != first["study"]
