# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The phantom command: files, reading them back, resuming, and errors."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from monai_medpruner.cli.main import main
from monai_medpruner.data.phantom import (
    ORGANS,
    PhantomSettings,
    generate_phantom,
    phantom_command,
    phantom_questions,
    phantom_report,
    phantom_seed,
)
from monai_medpruner.data.phantom import write as writing
from monai_medpruner.errors import OutputFolderError, SettingsError
from monai_medpruner.transforms import LoadVolume, SlicePlane

SMALL = PhantomSettings(in_plane_sizes=(32,), depth=(12, 16))
HEADER = "Image Path,Text,Question Type,Question,Choice A,Choice B,Choice C,Choice D,Answer,Answer Choice"


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "new" / "folder"
    phantom_command(9, 7, folder, SMALL)
    return folder


def contents(folder):
    """All files except partial files of a killed process."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_files(benchmark):
    names = {f"{folder}/phantom_{i:06d}.nii.gz" for folder in ("volumes", "organs", "lesions") for i in range(9)}
    names |= {f"truth/phantom_{i:06d}.json" for i in range(9)}
    names |= {"M3D_VQA_test.csv", "reports.jsonl", "phantoms.jsonl", "settings.json"}
    assert set(contents(benchmark)) == names


def test_same_arguments_give_the_same_files(benchmark, tmp_path):
    phantom_command(9, 7, tmp_path / "again", SMALL)
    assert contents(tmp_path / "again") == contents(benchmark)


def test_a_volume_does_not_depend_on_the_count(benchmark, tmp_path):
    phantom_command(2, 7, tmp_path, SMALL)
    few, many = contents(tmp_path), contents(benchmark)
    same = [name for name in few if name.startswith(("volumes", "organs", "lesions", "truth"))]
    assert len(same) == 8
    assert all(few[name] == many[name] for name in same)


def test_volumes_read_back(benchmark):
    planes = set()
    for index, truth in enumerate(lines(benchmark / "phantoms.jsonl")):
        phantom = generate_phantom(phantom_seed(7, index), SMALL)
        image = LoadVolume()(benchmark / truth["image"])
        np.testing.assert_array_equal(image[0].numpy(), phantom.volume)
        np.testing.assert_allclose(image.affine.numpy(), phantom.affine, atol=1e-4)
        assert SlicePlane("acquired")(image).meta["plane"] == phantom.plane
        planes.add(phantom.plane)
        for key, mask in (("organs", phantom.organs), ("lesion_mask", phantom.lesion_mask)):
            stored = nib.load(benchmark / truth[key])
            assert stored.get_data_dtype() == np.uint8
            np.testing.assert_array_equal(np.asarray(stored.dataobj), mask)
        assert nib.load(benchmark / truth["image"]).get_data_dtype() == np.int16
        assert nib.load(benchmark / truth["image"]).header.get_xyzt_units()[0] == "mm"
    assert planes == {"axial", "coronal", "sagittal"}


def test_tables(benchmark):
    text = (benchmark / "M3D_VQA_test.csv").read_text()
    assert text.splitlines()[0] == HEADER
    rows = list(csv.DictReader(text.splitlines()))
    phantoms = [generate_phantom(phantom_seed(7, index), SMALL) for index in range(9)]
    paths = [f"volumes/phantom_{index:06d}.nii.gz" for index in range(9)]
    expected = [phantom_questions(phantom, path) for phantom, path in zip(phantoms, paths, strict=True)]
    assert rows == [row for rows in expected for row in rows]
    assert {row["Question Type"] for row in rows} == set("12345")
    for path, phantom, report in zip(paths, phantoms, lines(benchmark / "reports.jsonl"), strict=True):
        assert report == {"id": path[8:22], "image": path, **phantom_report(phantom)}


def test_truth(benchmark):
    truths = lines(benchmark / "phantoms.jsonl")
    assert [truth["id"] for truth in truths] == [f"phantom_{index:06d}" for index in range(9)]
    for truth in truths:
        phantom = generate_phantom(truth["seed"], SMALL)
        assert truth["organ_labels"] == ORGANS
        assert (truth["plane"], truth["phase"]) == (phantom.plane, phantom.phase)
        assert tuple(truth["shape"]) == phantom.volume.shape
        assert np.array_equal(truth["affine"], phantom.affine)
        assert [lesion["diameter_mm"] for lesion in truth["lesions"]] == [one.diameter_mm for one in phantom.lesions]


@pytest.mark.parametrize("done", [0, 2, 5])
def test_resumes_after_an_interruption(benchmark, tmp_path, monkeypatch, done):
    """The run is interrupted while it writes a file of phantom ``done``; only the partial file remains of it."""
    original = writing.atomic_write
    left = 4 * done + 3

    def interrupt(path, content):
        nonlocal left
        left -= 1
        if left < 0:
            path.with_name(f"{path.name}.1.part").write_bytes(content[:50])
            raise KeyboardInterrupt
        original(path, content)

    monkeypatch.setattr(writing, "atomic_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        phantom_command(9, 7, tmp_path, SMALL)
    assert not (tmp_path / "M3D_VQA_test.csv").exists()
    monkeypatch.undo()
    drawn = []
    monkeypatch.setattr(
        writing, "generate_phantom", lambda seed, options: drawn.append(seed) or generate_phantom(seed, options)
    )
    phantom_command(9, 7, tmp_path, SMALL)
    assert drawn == [phantom_seed(7, index) for index in range(done, 9)]
    assert contents(tmp_path) == contents(benchmark)


def test_resumes_after_sigkill(tmp_path):
    """A real process is killed after it has finished two volumes."""
    command = [sys.executable, "-m", "monai_medpruner", "phantom", "--count", "6", "--seed", "3", "--out"]
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed" / "truth" / "phantom_000001.json").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / "killed" / "truth" / "phantom_000001.json").exists()
    main(["phantom", "--count", "6", "--seed", "3", "--out", str(tmp_path / "killed")])
    main(["phantom", "--count", "6", "--seed", "3", "--out", str(tmp_path / "whole")])
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_two_runs_at_once(tmp_path):
    """Two runs started together in one folder both succeed, with the files of a single run."""
    command = [sys.executable, "-m", "monai_medpruner", "phantom", "--preset", "small", "--count", "3", "--seed", "3"]
    both = [subprocess.Popen([*command, "--out", str(tmp_path / "both")], stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    main([*command[3:], "--out", str(tmp_path / "one")])
    assert contents(tmp_path / "both") == contents(tmp_path / "one")


def test_accepts_a_folder_in_which_another_run_is_starting(benchmark, tmp_path):
    """The folder contains only a partial settings file of the other run."""
    (tmp_path / "settings.json.4711.part").write_text("{")
    phantom_command(9, 7, tmp_path, SMALL)
    assert contents(tmp_path) == contents(benchmark)


def test_finished_run_is_not_changed(benchmark, monkeypatch):
    before = contents(benchmark)
    monkeypatch.setattr(writing, "generate_phantom", None)
    phantom_command(9, 7, benchmark, SMALL)
    assert contents(benchmark) == before


@pytest.mark.parametrize("other", [(8, 7, SMALL), (9, 6, SMALL), (9, 7, PhantomSettings((32,), (12, 17)))])
def test_rejects_a_folder_with_other_settings(benchmark, other):
    before = contents(benchmark)
    count, seed, options = other
    with pytest.raises(OutputFolderError, match="other settings"):
        phantom_command(count, seed, benchmark, options)
    assert contents(benchmark) == before


def test_rejects_a_folder_with_other_files(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputFolderError, match="not empty"):
        phantom_command(1, 0, tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(OutputFolderError, match="is a file"):
        phantom_command(1, 0, tmp_path / "thesis.txt", SMALL)
    with pytest.raises(OutputFolderError, match="cannot write"):
        phantom_command(1, 0, tmp_path / "thesis.txt" / "below", SMALL)
    with pytest.raises(SystemExit) as exit_:
        main(["phantom", "--count", "1", "--out", str(tmp_path)])
    assert exit_.value.code == 1
    assert "phantom: error: " in capsys.readouterr().err


@pytest.mark.parametrize(("count", "seed"), [(0, 1), (-1, 1), (900_001, 1), (1, -1)])
def test_invalid_count_and_seed(tmp_path, count, seed):
    with pytest.raises(SettingsError, match=r"at least 0|count must be"):
        phantom_command(count, seed, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_benchmarks_of_different_seeds_share_no_phantom():
    assert phantom_seed(0, 899_999) + 1 == phantom_seed(1, 0)
    assert phantom_seed(7, 0) % 36 == 0
