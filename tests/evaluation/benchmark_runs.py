# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A small benchmark in the format of M3D, and the arguments and outputs of a bundle's evaluation."""

from __future__ import annotations

import csv
import json

import jsonschema
import numpy as np

from monai_medpruner.results import LINE_SCHEMA, read_results

COLUMNS = [
    "Image Path",
    "Text",
    "Question Type",
    "Question",
    *(f"Choice {i}" for i in "ABCD"),
    "Answer",
    "Answer Choice",
]
ROWS = 3  # questions a volume, each closed and open


def write_m3d(folder, volumes=2):
    """Write files as in M3D-VQA: arrays (1, depth, height, width) in [0, 1] and the table."""
    rows = []
    for number in range(volumes):
        name = f"M3D_Cap/ct_case/{number:06d}/Axial.npy"
        path = folder / name
        path.parent.mkdir(parents=True)
        voxels = np.random.default_rng(number).random((1, 5, 64, 64), dtype=np.float32)
        np.save(path, voxels)
        for kind in range(1, ROWS + 1):
            question = f"Which {number}-{kind}?"
            rows.append([name, "", kind, question, "Liver", "Spleen", "NA", "NA", "Spleen", "B"])
    with (folder / "M3D_VQA_test.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return folder


def bundle_arguments(repository, output_dir, bundle="medpruner_qwen3vl", configs=("inference", "evaluate"), **settings):
    """Return the arguments of the run command for an evaluation with the tiny model."""
    folder = repository / "bundles" / bundle
    return {
        "config_file": [str(folder / "configs" / f"{name}.json") for name in configs],
        "bundle_root": str(folder),
        "model_id": "tiny",
        "max_new_tokens": 3,
        "report_tokens": 3,
        "output_dir": str(output_dir),
        **settings,
    }


def read_lines(folder):
    """Return the lines of a run after checking each against the schema."""
    lines = read_results(folder).lines
    for line in lines:
        jsonschema.validate(line, LINE_SCHEMA)
    return lines


def read_metrics(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def lasting(lines):
    """Return lines without the fields that differ between equal runs (time and memory)."""
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "peak_memory_mb")} for line in lines
    ]
