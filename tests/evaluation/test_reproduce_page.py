# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Every command of ``docs/reproduce.md`` with every bundle, on small files in the form of its data set.

A mark above a command, ``<!-- data: NAME -->``, says which form. The command runs as it stands there, with a tiny model
and shorter answers.
"""

from __future__ import annotations

import csv
import json
import re
import runpy
import shlex
import sys

import nibabel as nib
import numpy as np
import pytest
from benchmark_runs import read_lines, read_metrics, write_m3d
from PIL import Image

from monai_medpruner.metrics import find_protocol

BUNDLES = ("medpruner_qwen3vl", "medpruner_medgemma", "medpruner_hulumed")
MARKED = re.compile(r"<!-- data: ([^>]*) -->\n```bash\nB=(\w+)\n(python [^\n]*)\n```")
TINY = "--model_id tiny --max_new_tokens 2 --report_tokens 2 --device cpu"
LETTER = "\nAnswer with the option's letter from the given choices directly."
CONCISELY = "\nPlease answer the question concisely."
LISTED = "Does this CT image present medical material?\nA.Yes\nB.No"
REPORT = "Findings: none. Impression: normal."


def write_ct(file, depth=5):
    """A body of 40 HU in air."""
    file.parent.mkdir(parents=True, exist_ok=True)
    row, column = np.mgrid[:64, :64]
    voxels = np.full((64, 64, depth), -1000, dtype=np.int16)
    voxels[((row - 32) / 25) ** 2 + ((column - 32) / 20) ** 2 < 1] = 40
    voxels[..., depth // 2 :] += np.int16(200)
    nib.save(nib.Nifti1Image(voxels, np.diag([-0.8, -0.8, 5.0, 1.0])), file)


def write_slices(folder, depth=5):
    """Gray PNG slices, numbered without leading zeros."""
    folder.mkdir(parents=True)
    for number in range(depth):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def conversation(question, answer, video, **facts):
    turns = [{"from": "human", "value": f"<video>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"video": [video], "conversations": turns, **facts}


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def m3d_table(root):
    (root / "M3D").mkdir()
    write_m3d(root / "M3D", volumes=1)


def rad3d_tables(root):
    head = ["Task", "Subtask", "VolumeName", "Question", "Answer", "QuestionType", "AnswerChoice"]
    rows = [
        ["4", "2", "test_1_a_1.nii.gz", "Is there atelectasis?", "No", "Close", "B", "Yes", "No", "-", "-"],
        ["3", "2", "test_1_a_1.nii.gz", "What is the size?", "6x4 mm", "Open", "-", "-", "-", "-", "-"],
    ]
    table = root / "3D-RAD" / "3DRAD" / "test" / "Task4_Existence_Detection" / "Atelectasis.csv"
    table.parent.mkdir(parents=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[*head, *(f"Choice {letter}" for letter in "ABCD")], *rows])
    write_ct(root / "3D-RAD" / "valid_fixed" / "valid_1" / "valid_1_a" / "valid_1_a_1.nii.gz")


def amos_files(root):
    question = {"question": "Which organ?", "options": {"A": "Liver", "B": "Lung"}, "answer": "A", "type": "organ"}
    report = {"findings": {"abdomen": "A cyst."}, "impression": {"abdomen": ["Benign."]}}
    for name, labels in (
        ("report_generation_train_val", {"report": report}),
        ("vqa_train_val", {"qa": [question]}),
    ):
        entries = [{"image": "./imagesVa/amos_0001.nii.gz", "meta": {}, "labels": labels}]
        write_json(root / "AMOS-MM" / f"{name}.json", {"licence": "", "training": [], "validation": entries})
    write_ct(root / "AMOS-MM" / "imagesVa" / "amos_0001.nii.gz")


def m3d_slices(root):
    video = "ct_quizze/008799/Axial_C__arterial_phase"
    write_json(
        root / "M3D-slices" / "M3D_test.json",
        [
            conversation(LISTED, "A.Yes", video, Question_Type="CLOSED", type=4),
            conversation("Which plane?", "Axial", video, Question_Type="OPEN", type=1),
        ],
    )
    folder = root / "M3D-slices" / video
    write_slices(folder)
    Image.new("RGB", (64, 64), (90, 10, 10)).save(folder / "5.png")
    Image.new("L", (80, 64)).save(folder / "6.png")


def rad3d_slices(root):
    facts = {"type": "Existence_Detection", "sub-type": "Medical material"}
    video = "valid_crop/valid_1000_a_1"
    item = conversation(LISTED, "B.No", video, Question_Type="Close", **facts)
    write_json(root / "3D-RAD-slices" / "Rad3D_test.json", [item])
    write_slices(root / "3D-RAD-slices" / video)


def amos_slices(root):
    video = "amos_test_crop_32/amos_5001"
    write_json(root / "AMOS-MM-slices" / "amos_val_mrg_sft.json", [conversation("Report?", REPORT, video)])
    write_slices(root / "AMOS-MM-slices" / video)


#: form of a data set -> its writer, the prompts of its items in their order, the source, and the number of slices
FORMS = {
    "M3D table": (m3d_table, None, "npy", 5),
    "3D-RAD tables": (
        rad3d_tables,
        [f"Is there atelectasis? Choices: A. Yes B. No{LETTER}", f"What is the size?{CONCISELY}"],
        "NIfTI",
        5,
    ),
    "AMOS-MM files": (amos_files, [None, f"Which organ? Choices: A. Liver B. Lung{LETTER}"], "NIfTI", 5),
    "M3D slices": (m3d_slices, [LISTED + LETTER, f"Which plane?{CONCISELY}"], "images", 6),
    "3D-RAD slices": (rad3d_slices, [LISTED + LETTER], "images", 5),
    "AMOS-MM slices": (amos_slices, [None], "images", 5),
}


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs" / "reproduce.md").read_text(encoding="utf-8")


def test_the_page_has_a_command_for_every_form(page):
    assert [mark for mark, _, _ in MARKED.findall(page)] == list(FORMS)
    section = page.split("## Commands")[1].split("## Presets")[0]
    assert section.count("\npython ") == len(FORMS)


def command_of(page, form, bundle):
    """The command of a form of data for a bundle as it stands on the page."""
    (command,) = [line for mark, _, line in MARKED.findall(page) if mark == form]
    return command.replace("$B", bundle)


def run_command(repository, form, command, folder, monkeypatch):
    """Run a command on small files of a form of data, and return its lines, none of which failed."""
    write, _, source, slices = FORMS[form]
    write(folder)
    (folder / "bundles").symlink_to(repository / "bundles")
    words = shlex.split(f"{command} {TINY}")
    assert words[:3] == ["python", "-m", "monai.bundle"]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", words[2:])
    runpy.run_module(words[2], run_name="__main__")
    output = folder / words[words.index("--output_dir") + 1]
    lines, metrics = read_lines(output), read_metrics(output)
    assert [line["error"] for line in lines] == [None] * len(lines)
    assert (metrics["failed"], metrics["volumes"], metrics["slices"]["source"]) == (0, 1, {source: 1})
    assert {line["slices"]["total"] for line in lines} == {slices}
    return lines


@pytest.mark.parametrize("preset", ["released", "makers"])
def test_preset_command_of_the_page(repository, page, tmp_path, monkeypatch, preset):
    section = page.split("## Presets")[1].split("## Output")[0]
    (command,) = [line for line in section.splitlines() if line.startswith("python ") and f"preset_{preset}." in line]
    bundle = section.split("\nB=")[1].split("\n")[0]
    lines = run_command(repository, "M3D table", command.replace("$B", bundle), tmp_path, monkeypatch)
    assert {line["settings"]["preset"] for line in lines} == {preset}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("preset", ["released", "makers"])
def test_command_under_a_preset(repository, page, tmp_path, monkeypatch, preset, form):
    """Each bundle in turn; every bundle under every preset is in test_evaluated_presets.py."""
    bundle = BUNDLES[list(FORMS).index(form) % len(BUNDLES)]
    added = f"evaluate.json','bundles/{bundle}/configs/preset_{preset}.json']"
    command = command_of(page, form, bundle).replace("evaluate.json']", added)
    lines = run_command(repository, form, command, tmp_path, monkeypatch)
    assert {line["settings"]["preset"] for line in lines} == {preset}
    assert {line["slices"]["kept"] for line in lines} == {FORMS[form][3]}


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("form", FORMS)
def test_command_of_the_page(repository, page, tmp_path, monkeypatch, form, bundle):
    prompts = FORMS[form][1]
    lines = run_command(repository, form, command_of(page, form, bundle), tmp_path, monkeypatch)
    if prompts is not None:
        report = find_protocol("meduni-report").report_prompt
        assert [line["prompt"] for line in lines] == [one or report for one in prompts]
    if form == "M3D slices":
        notes = " ".join(lines[0]["notes"])
        assert "1 of 6 slices were in color" in notes
        assert "1 of 7 slices were left out" in notes
