# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A sweep of three runs about five closed questions, made of lines alone."""

from __future__ import annotations

import json

from monai_medpruner.metrics import run_report

HOSTILE = "</script><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
MODEL = {"model_id": "tiny", "model_type": "qwen3_vl", "random_weights": True}
GRID = [(0.01, 0.3, 40), (0.01, 0.9, 90), (None, 0.3, 60)]
#: question -> the answers of the three runs; the right one is A
ANSWERS = {"q0": "AAA", "q1": "ABA", "q2": "BAB", "q3": "BBB", "q4": "BAA"}


def line(number, name, answer, kept):
    return {
        "id": name,
        "question": f"{HOSTILE} {name}?",
        "answer": answer,
        "reference": "liver",
        "reference_choice": "A",
        "choices": {"A": "liver", "B": "lung"},
        "type": "organ" if number % 2 else "plane",
        "status": "ok",
        "volume_id": "v0",
        "record": "v0",
        "slices": {"total": 10, "kept": 5},
        "tokens": {"unpruned": 100, "kept": kept},
        "seconds": {"encode": 1.0},
        "source": "NIfTI",
        "settings": {"model": MODEL, "pruner": {"name": "nucleus", "tau": kept / 100}},
    }


def write_sweep_runs(place):
    """Write the folders of the runs, with one report, and return the rows of the sweep."""
    found = []
    for number, (gamma, tau, kept) in enumerate(GRID):
        folder = place / f"run{number}"
        folder.mkdir()
        lines = [line(i, name, answers[number], kept) for i, (name, answers) in enumerate(ANSWERS.items())]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        metrics = run_report(lines, "meduni-vqa", resamples=50) | {"settings": {"model": MODEL, "benchmark": "m3d_vqa"}}
        found.append({"gamma": gamma, "tau": tau, "temperature": 1.0, "folder": folder.name, "metrics": metrics})
    (place / "run1" / "reports").mkdir()
    (place / "run1" / "reports" / "v0.html").write_text("")
    return found
