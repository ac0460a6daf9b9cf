# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The text table of answers."""

from __future__ import annotations

import json

import pytest

from monai_medpruner.errors import BenchmarkError, OutputFolderError
from monai_medpruner.report import answer_table


def answer_line(question, answer, image="some/volumes/a.nii.gz", **seconds):
    return {
        "image": image,
        "question": question,
        "answer": answer,
        "slices": {"total": 50, "kept": 20, "largest_gap_mm": 7.25},
        "tokens": {"unpruned": 1800, "kept": 90},
        "seconds": {"encode": 0.0, "prefill": 0.25, **seconds},
        "settings": {"model": {"model_type": "gemma3", "model_id": "models/gemma3", "random_weights": False}},
        "notes": ["gaps are uneven", "no rescale slope"],
    }


@pytest.fixture
def run(tmp_path):
    lines = [
        answer_line("Which plane?", "axial ", encode=1.5),
        answer_line("Which organ?", "Liver"),
        answer_line("What else?", "Nothing"),
        answer_line("Which plane?", "Axial", image="some/volumes/b.nii.gz"),
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "M3D_VQA_test.csv").write_text(
        "Image Path,Question,Answer\n"
        "volumes/b.nii.gz,Which plane?,Coronal\n"
        "volumes/a.nii.gz,Which plane?,Axial\n"
        "volumes/a.nii.gz,Which organ?,Spleen\n"
    )
    return tmp_path


def test_answers_with_truth(run):
    """Matched by volume and question, ignoring case and outer spaces. An unknown truth does not count as wrong."""
    first, second = (part.splitlines() for part in answer_table(run, run).split("\n\nsome/"))
    assert first[0] == "some/volumes/a.nii.gz, read by gemma3 from models/gemma3"
    assert [line.split("  ") for line in first if line.startswith("W")] == [
        ["Which plane?", "axial", "", "Axial"],
        ["Which organ?", "Liver", "", "Spleen", "<- the answer is wrong"],
        ["What else?", "", "Nothing", "(unknown)"],
    ]
    assert first[-5:] == [
        "right: 1 of 2",
        "kept: 20 of 50 slices (largest gap 7.2 mm), 90 of 1,800 visual tokens (5.0 %)",
        "seconds: 2.25 (encode 1.50, prefill 0.75)",
        "note: gaps are uneven",
        "note: no rescale slope",
    ]
    assert second[-6] == "right: 0 of 1"


def test_answers_without_truth(run):
    """There is no column for an unknown truth. The file can be given instead of its folder."""
    text = answer_table(run / "answers.jsonl")
    assert "truth" not in text
    assert "right" not in text
    assert "Nothing" in text


def test_random_weights_are_stated(run):
    line = answer_line("Which plane?", "word soup")
    line["settings"]["model"]["random_weights"] = True
    (run / "answers.jsonl").write_text(json.dumps(line) + "\n")
    assert "with random weights" in answer_table(run)


def test_no_gap_without_geometry(run):
    line = answer_line("Which plane?", "axial")
    line["slices"]["largest_gap_mm"] = None
    (run / "answers.jsonl").write_text(json.dumps(line) + "\n")
    assert "kept: 20 of 50 slices, 90 of 1,800" in answer_table(run)


@pytest.mark.parametrize("text", ["", "{", '{"id": 1}\n', "3\n"])
def test_no_answers(run, text):
    (run / "answers.jsonl").write_text(text)
    with pytest.raises(OutputFolderError, match=r"answers\.jsonl"):
        answer_table(run)


def test_invalid_truth(run):
    with pytest.raises(BenchmarkError, match="cannot be read"):
        answer_table(run, run / "absent.csv")
    (run / "M3D_VQA_test.csv").write_text("Image,Question\n1,2\n")
    with pytest.raises(BenchmarkError, match="columns"):
        answer_table(run, run)
