# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A server with a trained model gives the bundle's answers about phantoms."""

from __future__ import annotations

import csv
import json

import pytest
from label_server import start_server

from monai_medpruner.cli import main as command_line
from monai_medpruner.data.phantom import QUESTION_TYPES
from monai_medpruner.metrics import find_protocol
from monai_medpruner.metrics.answer_rules import answer_is_correct
from monai_medpruner.settings import bundle_folders

monailabel_client = pytest.importorskip(
    "monailabel.client", reason="MONAI Label has an environment of its own, see docs/label.md"
)
if "medpruner_phantom" not in bundle_folders():
    pytest.skip("the bundle with models trained on phantoms is not in this checkout", allow_module_level=True)

PHANTOMS = 3


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Phantoms that are not in the training data, with their multiple-choice questions."""
    folder = tmp_path_factory.mktemp("phantoms") / "out"
    words = ["--preset", "small", "--count", str(PHANTOMS), "--seed", "777", "--out", str(folder)]
    command_line.main(["phantom", *words])
    asked = {}
    with (folder / "M3D_VQA_test.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            choices = {letter: row[f"Choice {letter}"] for letter in "ABCD" if row[f"Choice {letter}"] != "NA"}
            text = find_protocol("meduni-vqa").prompt(row["Question"], choices)
            kind = next(name for name, number in QUESTION_TYPES.items() if str(number) == row["Question Type"])
            asked.setdefault(folder / row["Image Path"], []).append((text, kind, row["Answer Choice"], choices))
    return asked


@pytest.fixture(scope="module")
def client(tmp_path_factory, phantoms, repository):
    folder = tmp_path_factory.mktemp("server")
    server = start_server(folder, next(iter(phantoms)).parent, {"model": "phantom"}, repository)
    yield monailabel_client.MONAILabelClient(server.url, tmpdir=str(folder))
    server.process.terminate()
    server.process.wait(timeout=30)


def test_right_answers(client, phantoms, tmp_path):
    """Every answer equals the bundle's. Plane and phase must be right; the model card has the accuracy on findings."""
    right = {}
    for image, asked in phantoms.items():
        name = image.name.removesuffix(".nii.gz")
        answers = [json.loads(client.infer("ask", name, {"question": text})[1]) for text, *_ in asked]
        words = ["--bundle", "medpruner_phantom", "--image", str(image), "--output_dir", str(tmp_path / name)]
        command_line.main(["ask", *words, "--question", *(text for text, *_ in asked)])
        lines = (tmp_path / name / "answers.jsonl").read_text().splitlines()
        assert [answer["answer"] for answer in answers] == [json.loads(line)["answer"] for line in lines]
        for answer, (_, kind, letter, choices) in zip(answers, asked, strict=True):
            right.setdefault(kind, []).append(answer_is_correct(answer["answer"], letter, choices))
    assert set(right) == set(QUESTION_TYPES)
    # one choice in three is right by chance
    assert sum(right["plane"] + right["phase"]) >= 2 * PHANTOMS - 1, right


def test_follow_up_does_not_encode_again(client, phantoms):
    image, asked = next(iter(phantoms.items()))
    name = image.name.removesuffix(".nii.gz")
    first = json.loads(client.infer("ask", name, {"question": asked[0][0]})[1])
    history = [{"question": asked[0][0], "answer": first["answer"]}]
    later = json.loads(client.infer("ask", name, {"question": asked[1][0], "history": history})[1])
    assert all(later["seconds"][stage] == 0 for stage in ("load", "filter", "encode", "select"))
    assert later["seconds"]["prefill"] > 0
    assert later["record"] == first["record"]
