# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""An evaluation through a real vLLM server: the predictions of transformers, also after kills on either side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest
from phantom_studies import PHANTOM_BUNDLE, make_phantoms
from vllm_server import serve

from monai_medpruner.results import read_results

pytest.importorskip("vllm", reason="vLLM has an environment of its own")
pytestmark = pytest.mark.full

VOLUMES = 20
MODEL = PHANTOM_BUNDLE / "models" / "qwen3_vl"
SERVER = ["--enable-mm-embeds", "--limit-mm-per-prompt", '{"image": 0, "video": 0}', "--skip-mm-profiling"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return make_phantoms(tmp_path_factory.mktemp("phantoms") / "phantoms", VOLUMES)


def command(phantoms, folder, *words):
    """The evaluation of a user, with the small trained Qwen3-VL."""
    words = ["--preset", "fast", "--max_new_tokens", "16", *words]
    given = ["--bundle", "medpruner_phantom", "--dataset_dir", str(phantoms), "--output_dir", str(folder)]
    return [sys.executable, "-m", "monai_medpruner", "evaluate", *given, *words]


def evaluate(phantoms, folder, *words):
    return subprocess.run(
        command(phantoms, folder, *words), capture_output=True, text=True, env=ENVIRONMENT, timeout=1200
    )


def predictions(folder):
    """What an evaluation is about, by question."""
    lines = read_results(folder).lines
    assert len({line["id"] for line in lines}) == len(lines)
    kept = ("question", "answer", "status", "tokens", "slices", "new_tokens", "prompt_tokens")
    return {line["id"]: {name: line[name] for name in kept} for line in lines}


@pytest.fixture(scope="module")
def expected(phantoms, tmp_path_factory):
    """The predictions of transformers."""
    folder = tmp_path_factory.mktemp("transformers") / "out"
    process = evaluate(phantoms, folder)
    assert process.returncode == 0, process.stderr[-3000:]
    found = predictions(folder)
    assert len(found) > 64  # more than are asked at once
    assert len({one["answer"] for one in found.values()}) > 5
    return found


@contextmanager
def started(phantoms, folder, address):
    """An evaluation that runs until its first predictions are written."""
    process = subprocess.Popen(
        command(phantoms, folder, "--engine", "vllm", "--endpoint", address),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    )
    file, deadline = folder / "predictions.jsonl", time.monotonic() + 900
    while process.poll() is None and time.monotonic() < deadline and not (file.exists() and file.stat().st_size):
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0][-3000:]
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def kill_server(address):
    """End all processes of the server that listens at an address by SIGKILL."""
    port = int(address.rsplit(":", 1)[1])
    (pid,) = {one.pid for one in psutil.net_connections("tcp") if one.laddr.port == port and one.status == "LISTEN"}
    os.killpg(os.getpgid(pid), signal.SIGKILL)


def evaluate_and_kill_server(phantoms, tmp_path, ended):
    """Add the exit status and the output of the client."""
    with serve(MODEL, tmp_path / "1.txt", *SERVER) as address, started(phantoms, tmp_path / "out", address) as process:
        kill_server(address)
        written = process.communicate(timeout=300)[0]
        ended.append((process.returncode, written))


def test_predictions_are_those_of_transformers_after_a_kill_of_the_client(phantoms, expected, tmp_path):
    with serve(MODEL, tmp_path / "log.txt", *SERVER) as address:
        process = evaluate(phantoms, tmp_path / "whole", "--engine", "vllm", "--endpoint", address)
        assert process.returncode == 0, process.stderr[-3000:]
        assert predictions(tmp_path / "whole") == expected
        with started(phantoms, tmp_path / "killed", address) as process:
            process.kill()
        before = (tmp_path / "killed" / "predictions.jsonl").read_bytes().count(b"\n")
        assert 0 < before < len(expected)
        process = evaluate(phantoms, tmp_path / "killed", "--engine", "vllm", "--endpoint", address)
        assert process.returncode == 0, process.stderr[-3000:]
        assert predictions(tmp_path / "killed") == expected


def test_a_kill_of_the_server_ends_the_run_which_another_server_resumes(phantoms, expected, tmp_path):
    ended = []
    with pytest.raises(RuntimeError, match="the vLLM server ended"):
        evaluate_and_kill_server(phantoms, tmp_path, ended)
    ((status, written),) = ended
    assert status == 1
    assert "no answer from the vLLM server" in written
    lines = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert 0 < len(lines) < len(expected)
    assert {json.loads(line)["status"] for line in lines} == {"ok"}  # nothing failed that another server can answer
    with serve(MODEL, tmp_path / "2.txt", *SERVER) as other:
        process = evaluate(phantoms, tmp_path / "out", "--engine", "vllm", "--endpoint", other)
        assert process.returncode == 0, process.stderr[-3000:]
        assert predictions(tmp_path / "out") == expected
