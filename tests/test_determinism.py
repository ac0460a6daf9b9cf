# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The same input, settings and device give the same bytes, but for times, memory and versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from safetensors.torch import load_file
from torch import equal

from monai_medpruner.results import StudyRecord

CODE = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from monai_medpruner.cli.main import main
from monai_medpruner.label.overlay import overlay, write_overlay
from monai_medpruner.results import read_results
image, folder, *more = sys.argv[1:]
main(["ask", "--image", image, "--model", "tiny", "--question", "a?", "b?", "--max_new_tokens", "8",
      "--output_dir", folder, *more])
run = read_results(folder)
labels, affine = overlay(run.record(run.record_names[0]))
write_overlay(labels, affine, Path(folder) / "overlay.nii", False)
"""
TIMES = ("seconds", "peak_memory_mb", "versions")


def run(image, folder, seed, *more):
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", CODE, str(image), str(folder), *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def lines(folder):
    """The bytes of each line, without what may differ, in the order of the file."""
    read = [json.loads(text) for text in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(set(TIMES) < set(line) for line in read)
    return [json.dumps({name: value for name, value in line.items() if name not in TIMES}) for line in read]


@pytest.mark.parametrize("more", [("--tau", "0.5"), ("--preset", "fast"), ("--pruner", "random_tokens")], ids=" ".join)
def test_two_processes(tmp_path, more):
    voxels = np.random.default_rng(0).integers(-150, 250, (96, 80, 12), dtype=np.int16)
    voxels[:8] = -1000
    image = tmp_path / "volume.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.diag([0.8, 0.8, 3.0, 1.0])), image)
    first, second = (run(image, tmp_path / str(seed), seed, *more) for seed in (1, 2))
    assert lines(first) == lines(second)
    assert len(lines(first)) == 2
    assert (first / "overlay.nii").read_bytes() == (second / "overlay.nii").read_bytes()
    names = sorted(path.name for path in (first / "records").iterdir())
    assert names == sorted(path.name for path in (second / "records").iterdir())
    for name in names:
        tensors, others = (load_file(folder / "records" / name) for folder in (first, second))
        assert list(tensors) == list(others)
        assert all(equal(tensors[one].nan_to_num(-1), others[one].nan_to_num(-1)) for one in tensors)
        facts, other_facts = (StudyRecord.load(folder / "records" / name).packed()[1] for folder in (first, second))
        for one in (facts, other_facts):
            assert one.pop("seconds")
        assert json.dumps(facts) == json.dumps(other_facts)
