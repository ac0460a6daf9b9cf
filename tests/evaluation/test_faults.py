# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""SIGTERM, a full disk, a folder that cannot be written, a kill between write and rename, a worker that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_runs import ROWS, lasting, read_lines, write_m3d
from ignite.engine import Engine

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.cli.main import main
from monai_medpruner.errors import LoaderWorkerError, OutputFolderError
from monai_medpruner.evaluation import PredictionFolder
from monai_medpruner.evaluation.worker_loss import is_worker_loss, worker_loss
from monai_medpruner.handlers import AnswerWriter
from monai_medpruner.networks import StudyCache
from monai_medpruner.results import read_lines as read_lines_of

VOLUMES = 3
LINES = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_m3d(tmp_path_factory.mktemp("data") / "m3d", VOLUMES)


@pytest.fixture
def faulty(tmp_path):
    """Return a function: fault, words of a command -> the finished process, which ran in ``tmp_path``."""
    script = Path(__file__).with_name("faulty_runs.py")

    def run(fault, *words):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.run(
            [sys.executable, str(script), fault, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=environment,
            timeout=500,
        )

    return run


def evaluation(data, folder):
    words = ["evaluate", "--model", "tiny", "--dataset_dir", str(data), "--max_new_tokens", "2"]
    return [*words, "--output_dir", str(folder)]


def asking(data, folder):
    images = sorted(str(path) for path in data.rglob("*.npy"))
    words = ["ask", "--model", "tiny", "--windows", "unit", "--max_new_tokens", "2", "--output_dir", str(folder)]
    return [*words, "--question", "a?", "b?", "--image", *images]


def finish(data, folder):
    """Run an evaluation to its end, and return its lines."""
    main(evaluation(data, folder))
    lines = read_lines(folder)
    assert len({line["id"] for line in lines}) == len(lines) == 2 * ROWS * VOLUMES
    return lines


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    return finish(data, tmp_path_factory.mktemp("undisturbed"))


def test_sigterm_ends_an_evaluation_that_resumes(faulty, data, tmp_path, undisturbed):
    process = faulty("terminate", *evaluation(data, tmp_path / "out"))
    assert process.returncode == 128 + signal.SIGTERM, process.stderr[-2000:]
    assert "medpruner evaluate: ended by SIGTERM; what was done is saved\n" in process.stderr
    assert "Traceback" not in process.stderr
    content = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8")
    assert content.endswith("\n")
    assert len(content.splitlines()) == LINES
    assert lasting(finish(data, tmp_path / "out")) == lasting(undisturbed)


def test_sigterm_ends_questions_about_many_images(faulty, data, tmp_path):
    process = faulty("terminate", *asking(data, tmp_path / "out"))
    assert process.returncode == 128 + signal.SIGTERM, process.stderr[-2000:]
    assert "medpruner ask: ended by SIGTERM; what was done is saved\n" in process.stderr
    lines = read_lines_of(tmp_path / "out" / "answers.jsonl")
    assert [line["question"] for line in lines] == ["a?", "b?", "a?", "b?"]  # of two whole volumes
    assert all((tmp_path / "out" / "records" / f"{line['record']}.safetensors").is_file() for line in lines)


def test_full_disk(faulty, data, tmp_path, undisturbed):
    process = faulty("full", *evaluation(data, tmp_path / "out"))
    assert process.returncode == 1, process.stderr[-2000:]
    assert "medpruner evaluate: error: cannot write to" in process.stderr
    assert "File too large. The lines before are kept" in process.stderr
    assert "Traceback" not in process.stderr
    content = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    assert content.endswith(b"\n")  # nothing of the line that did not fit
    assert len(content.splitlines()) == LINES
    assert lasting(finish(data, tmp_path / "out")) == lasting(undisturbed)


def test_full_disk_while_asking(faulty, data, tmp_path):
    process = faulty("full", *asking(data, tmp_path / "out"))
    assert process.returncode == 1, process.stderr[-2000:]
    assert "medpruner ask: error: cannot write" in process.stderr
    assert len(read_lines_of(tmp_path / "out" / "answers.jsonl")) >= LINES


def test_killed_between_write_and_rename(faulty, data, tmp_path, undisturbed):
    process = faulty("kill", *evaluation(data, tmp_path / "out"))
    assert process.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "out").glob("*.part"))) == 1
    assert not (tmp_path / "out" / "run.json").exists()
    assert lasting(finish(data, tmp_path / "out")) == lasting(undisturbed)
    assert not list((tmp_path / "out").rglob("*.part"))


@pytest.fixture
def ordinary_user():
    """Without the rights of root, who may write everywhere."""
    if os.name != "posix":
        pytest.skip("needs the rights of POSIX")
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    if user == 0:
        os.seteuid(0)


@pytest.mark.parametrize("command", [evaluation, asking])
def test_folder_that_cannot_be_made(data, capsys, command):
    with pytest.raises(SystemExit) as ended:
        main(command(data, "/proc/out"))
    assert ended.value.code == 1
    written = capsys.readouterr().err
    assert f"medpruner {command(data, '')[0]}: error: cannot write to" in written


def test_folder_that_may_not_be_written(tmp_path, ordinary_user):
    for attempt in (
        lambda: PredictionFolder(tmp_path / "out").open({}, []),
        lambda: AnswerWriter(tmp_path / "out").begin(Engine(lambda *_: None)),
        lambda: atomic_write(tmp_path / "file", b""),
        lambda: StudyCache(tmp_path / "cache"),
    ):
        with pytest.raises(OutputFolderError, match=r"cannot .*: Permission denied"):
            attempt()


def test_incomplete_last_line(tmp_path, caplog):
    file = tmp_path / "answers.jsonl"
    file.write_text('{"a": 1}\n{"a": 2}\n{"a": "Gr', encoding="utf-8")
    assert read_lines_of(file) == [{"a": 1}, {"a": 2}]
    assert "is incomplete (interrupted run) and is left out" in caplog.text
    file.write_text('{"a": 1}\n{"a": 2}', encoding="utf-8")
    assert read_lines_of(file) == [{"a": 1}, {"a": 2}]
    for damaged in ('{"a": 1\n{"a": 2}\n', '{"a": 1}\nno JSON'):
        file.write_text(damaged, encoding="utf-8")
        with pytest.raises(OutputFolderError):
            read_lines_of(file)


def test_texts_of_a_lost_worker():
    killed = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    assert is_worker_loss(killed)
    assert "was ended by a signal (Killed): perhaps memory ran out" in str(worker_loss(killed))
    assert is_worker_loss(RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"))
    assert not is_worker_loss(RuntimeError("CUDA error"))
    assert not is_worker_loss(ValueError("DataLoader worker (pid 7)"))


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_that_dies(evaluate, data, tmp_path, monkeypatch, undisturbed, workers):
    """Killed at one volume, as when memory runs out: its items fail by name, the others are answered."""
    from monai_medpruner.data.volume_reader import VolumeReader

    read = VolumeReader.read
    main_process = os.getpid()

    def deadly(self, path, **named):
        if "000001" in str(path) and os.getpid() != main_process:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, path, **named)

    monkeypatch.setattr(VolumeReader, "read", deadly)
    options = {"dataloader::num_workers": workers, "dataloader::multiprocessing_context": "fork"}
    lines, metrics = evaluate("worker", dataset_dir=str(data), max_new_tokens=2, **options)
    lost = [line for line in lines if "000001" in line["image"]]
    assert {line["status"] for line in lost} == {LoaderWorkerError.__name__}
    assert all("ended by a signal (Killed)" in line["error"] for line in lost)
    assert metrics["failed"] == len(lost) == 2 * ROWS
    others = [line["answer"] for line in lines if line not in lost]
    assert others == [line["answer"] for line in undisturbed if "000001" not in line["image"]]
