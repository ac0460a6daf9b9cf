# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The command on Ray, with processes that are killed: predictions are those of ``medpruner ask``."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import jsonschema
import psutil
import pytest
from archive_runs import BUNDLE, CUT, STUDIES, lasting

from monai_medpruner.results import LINE_SCHEMA, read_lines, read_results

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray (the extra ray) is not installed")

SECONDS = 400
# two of Ray's own processes, which hold no model and no study, notice later that they are alone
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def command(archive, out, *words):
    given = ["--studies", archive / "phantoms" / "volumes", "--questions", archive / "questions.jsonl", "--out", out]
    given += ["--bundle", BUNDLE, "--device", "cpu", "--encoders", 2, "--answerers", 1, "--buffer_gb", 0.1, *words]
    return [sys.executable, "-m", "monai_medpruner", "archive", *map(str, given)]


@pytest.fixture
def start(tmp_path):
    """Return a function: command -> the running process, whose messages go to files; ended with the test."""
    processes = []

    def start(words):
        name = f"run{len(processes)}"
        with (tmp_path / f"{name}.out").open("w") as out, (tmp_path / f"{name}.err").open("w") as err:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            processes.append(subprocess.Popen(words, stdout=out, stderr=err, cwd=tmp_path, env=environment))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(condition, process=None):
    """Wait until a condition holds, while a process runs."""
    ends = time.monotonic() + SECONDS
    while not condition():
        assert process is None or process.poll() is None, f"ended with status {process.returncode}"
        assert time.monotonic() < ends, "took too long"
        time.sleep(0.05)


def count(out):
    file = out / "predictions.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def workers(driver, stage):
    """The processes of a stage, by the titles that Ray gives them."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if f"MapWorker(Map({stage}))" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # it has ended
            continue
    return found


def kill_worker(driver, stage):
    """Kill the process of a stage that has worked most."""
    victim = max(workers(driver, stage), key=lambda process: process.cpu_times().user)
    victim.send_signal(signal.SIGKILL)
    gone, _ = psutil.wait_procs([victim], timeout=30)
    assert gone


def kill_driver(driver):
    """Kill the driver; nothing that it started may be left."""
    family = psutil.Process(driver.pid).children(recursive=True)
    held = [process for process in family if process.name() not in AGENTS]
    assert len(held) > 5
    driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(held, timeout=60)
    assert not alive


def check(out, asked):
    """None lost, none twice, all as those of ``ask``; the study that is cut off is recorded with its error."""
    lines = read_lines(out / "predictions.jsonl")
    assert [line["id"] for line in lines] == [f"{n}-{kind}" for n in range(STUDIES) for kind in ("lesion", "plane")]
    for line in lines:
        jsonschema.validate(line, LINE_SCHEMA)
    failed = [line for line in lines if line["image"].endswith(CUT)]
    assert [(line["status"], CUT in line["error"]) for line in failed] == [("UnreadableVolumeError", True)] * 2
    assert lasting([line for line in lines if line not in failed]) == lasting(asked)
    results = read_results(out)
    assert len(results.record_names) == STUDIES - 1
    kept = {name: results.record(name).kept_tokens for name in results.record_names}
    assert kept == {line["record"]: line["tokens"]["per_slice"] for line in asked}
    assert not list((out / "records").glob("*.part"))


def listening(driver):
    """The addresses at which a process and all that it started can be reached."""
    family = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
    found = [one for process in family for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    addresses = [ipaddress.ip_address(one.laddr.ip) for one in found]
    return [getattr(address, "ipv4_mapped", None) or address for address in addresses]


def test_a_worker_and_the_driver_are_killed(archive, asked, start, tmp_path):
    out = tmp_path / "out"
    driver = start(command(archive, out))
    wait_for(lambda: count(out) >= 4, driver)
    addresses = listening(driver)
    assert addresses
    assert all(address.is_loopback for address in addresses)
    kill_worker(driver, "EncodeStudies")
    killed_at = count(out)
    wait_for(lambda: count(out) >= killed_at + 6, driver)
    kill_driver(driver)
    before = read_lines(out / "predictions.jsonl")
    assert killed_at < len(before) < 2 * STUDIES

    driver = start(command(archive, out))
    assert driver.wait(SECONDS) == 0, (tmp_path / "run1.err").read_text()[-3000:]
    check(out, asked)
    after = {line["id"]: line for line in read_lines(out / "predictions.jsonl")}
    assert all(after[line["id"]] == line for line in before)  # also their times: none was asked again
    assert (tmp_path / "run1.out").read_text().splitlines()[:2] == [
        f"questions: {2 * STUDIES} about {STUDIES} studies, 2 failed",
        "UnreadableVolumeError: 2",
    ]


@pytest.mark.full
def test_a_worker_of_each_stage_and_the_driver_twice(archive, asked, start, tmp_path):
    out = tmp_path / "out"
    # the answerer last: while it starts again, the encoders may end their work and leave
    for stages in (("ReadStudies", "EncodeStudies"), ("EncodeStudies", "AnswerStudies")):
        driver = start(command(archive, out))
        before = count(out)
        wait_for(lambda least=before + 2: count(out) >= least, driver)
        for stage in stages:
            kill_worker(driver, stage)
            reached = count(out)
            wait_for(lambda least=reached + 2: count(out) >= least, driver)
        kill_driver(driver)
        file = out / "predictions.jsonl"
        file.write_bytes(file.read_bytes()[:-20])  # as after a loss of power
    driver = start(command(archive, out))
    assert driver.wait(SECONDS) == 0
    check(out, asked)


@pytest.mark.full
def test_another_run_is_refused_and_failures_are_retried(archive, asked, start, tmp_path):
    """With other settings; then, with the study made whole, what failed alone is asked again."""
    studies = tmp_path / "studies"
    studies.mkdir()
    source = archive / "phantoms" / "volumes"
    (studies / "whole.nii.gz").write_bytes((source / "phantom_000003.nii.gz").read_bytes())
    (studies / "late.nii.gz").write_bytes((source / CUT).read_bytes())
    (tmp_path / "questions.txt").write_text("Which plane is it?\n", encoding="utf-8")
    given = ["--studies", studies, "--questions", tmp_path / "questions.txt", "--out", tmp_path / "out"]
    words = [sys.executable, "-m", "monai_medpruner", "archive", *map(str, given), "--bundle", BUNDLE]
    words += ["--device", "cpu", "--buffer_gb", "0.1"]
    assert start(words).wait(SECONDS) == 0
    first = {line["image"]: line for line in read_lines(tmp_path / "out" / "predictions.jsonl")}
    assert sorted(line["status"] for line in first.values()) == ["UnreadableVolumeError", "ok"]

    assert start([*words, "--tau", "0.5"]).wait(SECONDS) == 1
    assert "predictions of another run" in (tmp_path / "run1.err").read_text()

    (studies / "late.nii.gz").write_bytes((source / "phantom_000005.nii.gz").read_bytes())
    assert start([*words, "--retry_failed"]).wait(SECONDS) == 0
    second = {line["image"]: line for line in read_lines(tmp_path / "out" / "predictions.jsonl")}
    assert [line["status"] for line in second.values()] == ["ok", "ok"]
    assert second[str(studies / "whole.nii.gz")] == first[str(studies / "whole.nii.gz")]


@pytest.mark.full
def test_a_cluster_that_loses_a_node(archive, asked, start, tmp_path):
    """Two nodes, as far as Ray is concerned; the second is killed with the workers on it, which fit onto the first."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 5, "object_store_memory": 10**8})
    try:
        second = cluster.add_node(num_cpus=2, object_store_memory=10**8)
        driver = start(command(archive, tmp_path / "out", "--address", cluster.address))
        wait_for(lambda: count(tmp_path / "out") >= 6, driver)
        cluster.remove_node(second, allow_graceful=False)
        assert driver.wait(SECONDS) == 0, (tmp_path / "run0.err").read_text()[-3000:]
    finally:
        cluster.shutdown()
    check(tmp_path / "out", asked)


@pytest.mark.full
def test_a_model_that_is_missing_is_told(archive, start, tmp_path):
    words = [*command(archive, tmp_path / "out"), "--model", str(tmp_path / "absent")]
    assert start(words).wait(SECONDS) == 1
    told = (tmp_path / "run0.err").read_text().splitlines()[-1]
    assert told.startswith("medpruner archive: error: cannot load")
    assert not (tmp_path / "out").exists()
