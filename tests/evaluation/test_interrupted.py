# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Runs that are killed and resumed, and runs of several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmark_runs import bundle_arguments, lasting, read_lines, read_metrics, write_m3d

from monai_medpruner.data.phantom import PhantomSettings, phantom_command

KILLS = 10
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def without_time(metrics):
    return {name: value for name, value in metrics.items() if name not in ("seconds", "world_size")}


def test_killed_ten_times(repository, evaluate, tmp_path):
    data = write_m3d(tmp_path / "data", volumes=12)
    lines, metrics = evaluate("undisturbed", dataset_dir=str(data))
    arguments = bundle_arguments(repository, tmp_path / "killed", dataset_dir=str(data))
    script = Path(__file__).with_name("killed_runs.py")
    command = [sys.executable, str(script), json.dumps(arguments), str(KILLS), str(len(lines)), "5"]
    process = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=500)
    assert process.returncode == 0, process.stderr[-2000:]
    result = json.loads(process.stdout.splitlines()[-1])
    assert result["exit"] == 0
    assert len(result["counts"]) == KILLS
    assert result["counts"][0] < result["counts"][-1] < len(lines)  # the runs went on, and none was the last
    resumed = read_lines(tmp_path / "killed")
    assert lasting(resumed) == lasting(lines)  # none lost, none twice, in order
    assert without_time(read_metrics(tmp_path / "killed")) == without_time(metrics)


def test_two_processes(repository, evaluate, tmp_path):
    """Started as by a user, on phantoms."""
    settings = PhantomSettings(in_plane_sizes=(64,), depth=(6, 6))
    phantom_command(3, 3, tmp_path / "phantoms", settings)
    given = {"dataset_dir": str(tmp_path / "phantoms"), "max_slices": 3}
    lines, metrics = evaluate("one", **given)
    configs = ("inference", "evaluate", "multi_gpu_evaluate")
    arguments = bundle_arguments(repository, tmp_path / "two", configs=configs, **given)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "monai.bundle", "run"]
    for name, value in arguments.items():
        command += [f"--{name}", str(value)]
    process = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert process.returncode == 0, process.stderr[-3000:]
    assert lasting(read_lines(tmp_path / "two")) == lasting(lines)
    assert read_metrics(tmp_path / "two")["world_size"] == 2
    assert without_time(read_metrics(tmp_path / "two")) == without_time(metrics)
    assert not list((tmp_path / "two").glob("predictions.rank*"))
