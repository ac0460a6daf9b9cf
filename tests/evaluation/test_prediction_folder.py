# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The folder of predictions: one writer, no lost, duplicate or mixed lines."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from monai_medpruner.errors import IncompletePredictionsError, MixedRunError, OutputFolderError
from monai_medpruner.evaluation import PredictionFolder

IDS = ["c", "a", "b"]
IDENTITY = {"settings": {"tau": 0.9, "gamma": None}, "items": {"count": 3}}


def line(name, **fields):
    return {"id": name, "status": "ok", "answer": f"Größe {name}", **fields}


def texts(tmp_path):
    return (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()


def ids_of(tmp_path):
    return [json.loads(text)["id"] for text in texts(tmp_path)]


@pytest.fixture
def folder(tmp_path):
    folder = PredictionFolder(tmp_path)
    yield folder
    folder.close()


def test_lines_are_in_the_order_of_the_items(folder, tmp_path):
    assert folder.open(IDENTITY, IDS) == set()
    for name in ("b", "c", "a"):
        folder.append(line(name))
    assert ids_of(tmp_path) == ["b", "c", "a"]
    assert [one["id"] for one in folder.finish(IDS)] == ids_of(tmp_path) == IDS
    folder.close()
    assert folder.open(IDENTITY, IDS) == set(IDS)


def test_every_line_is_on_disk_at_once(folder, tmp_path):
    folder.open(IDENTITY, IDS)
    folder.append(line("a"))
    assert json.loads(texts(tmp_path)[0]) == line("a")


@pytest.mark.parametrize("kept", [1, 5, -2, -1])
def test_incomplete_last_line_is_removed(folder, tmp_path, caplog, kept):
    folder.open(IDENTITY, IDS)
    folder.append(line("a"))
    folder.append(line("b"))
    folder.close()
    file = tmp_path / "predictions.jsonl"
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + second[:kept])
    assert folder.open(IDENTITY, IDS) == {"a"}
    assert "is incomplete (interrupted run)" in caplog.text
    for name in ("b", "c"):
        folder.append(line(name))
    assert [one["id"] for one in folder.finish(IDS)] == IDS


def test_damaged_line_elsewhere_is_an_error(folder, tmp_path):
    folder.open(IDENTITY, IDS)
    folder.append(line("a"))
    folder.close()
    file = tmp_path / "predictions.jsonl"
    file.write_bytes(b"{}\n" + file.read_bytes())
    with pytest.raises(OutputFolderError, match="line 1 of"):
        folder.open(IDENTITY, IDS)


def test_files_of_ranks_are_merged(folder, tmp_path):
    """Files left by several killed processes, one of which was merging the files."""
    folder.open(IDENTITY, IDS)
    folder.append(line("a"))
    folder.close()
    for rank, names in enumerate(["a", "b"]):
        text = "".join(json.dumps(line(name)) + "\n" for name in names)
        (tmp_path / f"predictions.rank{rank}.jsonl").write_text(text + '{"id": "cut')
    assert folder.open(IDENTITY, IDS) == {"a", "b"}
    assert not list(tmp_path.glob("predictions.rank*"))
    with pytest.raises(IncompletePredictionsError, match="1 of 3 items have no prediction: c"):
        folder.finish(IDS)
    assert ids_of(tmp_path) == ["a", "b"]


def test_failed_items_can_be_asked_again(tmp_path, folder):
    folder.open(IDENTITY, IDS)
    folder.append(line("a", status="MemoryError"))
    folder.append(line("b"))
    folder.close()
    again = PredictionFolder(tmp_path, retry_failed=True)
    assert again.open(IDENTITY, IDS) == {"b"}
    again.close()


def test_a_second_writer_is_refused(folder, tmp_path):
    folder.open(IDENTITY, IDS)
    program = (
        "import sys; from monai_medpruner.evaluation import PredictionFolder\n"
        f"PredictionFolder(sys.argv[1]).open({IDENTITY!r}, {IDS!r})"
    )
    process = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert process.returncode == 1
    assert f"MixedRunError: another run is writing to {tmp_path}" in process.stderr
    folder.close()
    PredictionFolder(tmp_path).open(IDENTITY, IDS)


def test_another_run_is_refused(folder, tmp_path):
    folder.open(IDENTITY, IDS)
    folder.append(line("a"))
    folder.close()
    other = {"settings": {"tau": 0.5, "gamma": None}, "items": {"count": 3}}
    with pytest.raises(MixedRunError, match=r"settings.tau was 0.9 and is 0.5\. Use another"):
        folder.open(other, IDS)
    folder.close()
    (tmp_path / "run.json").unlink()
    with pytest.raises(MixedRunError, match=r"no run\.json"):
        folder.open(IDENTITY, IDS)


def test_unknown_items_are_refused(folder):
    folder.open(IDENTITY, IDS)
    folder.append(line("x"))
    with pytest.raises(OutputFolderError, match="unknown item, x"):
        folder.finish(IDS)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFolderError, match="cannot write to"):
        PredictionFolder(tmp_path / "file" / "out").open(IDENTITY, IDS)


def test_append_needs_an_open_folder(folder):
    with pytest.raises(OutputFolderError, match="not open"):
        folder.append(line("a"))
