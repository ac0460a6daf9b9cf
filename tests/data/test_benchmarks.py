# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Datalists of benchmark folders, which the tests write in each official format."""

from __future__ import annotations

import csv
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_medpruner.data import BENCHMARKS, load_benchmark
from monai_medpruner.data.benchmark_items import ITEM_KEYS
from monai_medpruner.data.conversations import split_answer, split_choices
from monai_medpruner.data.rad3d import ct_rate_names
from monai_medpruner.errors import BenchmarkError, MissingImagesError, SettingsError
from monai_medpruner.evaluation import item_prompt
from monai_medpruner.metrics import find_protocol
from monai_medpruner.transforms import LoadVolume

M3D_HEADER = "Image Path,Text,Question Type,Question,Choice A,Choice B,Choice C,Choice D,Answer,Answer Choice"
RAD_HEADER = "Task,Subtask,VolumeName,Question,Answer,QuestionType,AnswerChoice,Choice A,Choice B,Choice C,Choice D"
M3D_ROWS = [
    "M3D_Cap_npy/1/Axial.npy,a text,1,What plane?,Axial,Coronal,NA,NA,Axial,A",
    'M3D_Cap_npy/1/Axial.npy,a text,3,"Which organ, mainly?",Liver,Left  kidney,Spleen,Heart,Left  kidney,B',
    "M3D_Cap_npy/2/Cor.npy,a text,5,Where is it?,Segment IV,Segment VI,NA,NA,Segment VI,B",
]
RAD_ROWS = {
    "Task3_Medical_Computation/Size": ["3,2,test_7_a_2.nii.gz,What is the size?,6x4 mm,Open,-,-,-,-,-"],
    "Task4_Existence_Detection/Atelectasis": [
        "4,2,test_1000_a_1.nii.gz,Is there atelectasis?,No,Close,B,Yes,No,-,-",
        "4,2,test_7_a_2.nii.gz,Is there atelectasis?,Yes,Close,A,Yes,No,-,-",
    ],
}


def write_table(path: Path, header: str, rows: list[str], end: str = "\n", encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(end.join([header, *rows, ""]).encode(encoding))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_m3d(folder: Path, rows: list[str] = M3D_ROWS, header: str = M3D_HEADER, **form) -> Path:
    write_table(folder / "M3D-VQA" / "M3D_VQA_test.csv", header, rows, **form)
    for name in ("1/Axial.npy", "2/Cor.npy"):
        path = folder / "M3D_Cap_npy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.random.default_rng(0).random((1, 32, 8, 8), dtype=np.float32))
    return folder


def write_rad3d(folder: Path) -> Path:
    for name, rows in RAD_ROWS.items():
        write_table(folder / "3DRAD" / "test" / f"{name}.csv", RAD_HEADER, rows)
    touch(folder, "valid_1000_a_1.nii.gz", "valid_fixed/valid_7/valid_7_a/valid_7_a_2.nii.gz")
    return folder


def conversation(question: str, answer: str, video: str, **facts) -> dict:
    turns = [{"from": "human", "value": f"<video>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"video": [video], "conversations": turns, **facts}


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def write_amos(folder: Path) -> Path:
    question = {
        "question": "Which organ is enlarged?",
        "options": {"A": "Liver", "B": "Spleen", "C": "-", "D": "NA"},
        "answer": "B",
        "type": "perception",
    }
    findings = {"chest": "", "abdomen": "The spleen is enlarged. ", "pelvis": "Normal."}
    labels = {"report": {"findings": findings}, "qa": [question, {**question, "question": "And?", "answer": "Liver"}]}
    empty = {"report": {"findings": dict.fromkeys(findings, "")}, "qa": []}
    volumes = [
        {"image": "./imagesVa/amos_0001.nii.gz", "meta": {}, "labels": labels},
        {"image": "./imagesVa/amos_0002.nii.gz", "meta": {}, "labels": empty},
    ]
    write_json(folder / "dataset.json", {"training": [], "validation": volumes, "testing": [{"image": "a"}]})
    touch(folder, "imagesVa/amos_0001.nii.gz", "imagesVa/amos_0002.nii.gz")
    return folder


OWN_TABLE = """image,question,choice_a,choice_b,answer,answer_choice,type,id,reader
a.nii.gz,"Is it, then?",Yes,No,No,B,detection,q1,x
a.nii.gz,What is it?,,-,A cyst,,,q2,x
"""


def write_own(folder: Path, text: str = OWN_TABLE) -> Path:
    (folder / "mine.csv").write_text(text, encoding="utf-8")
    touch(folder, "a.nii.gz")
    return folder


def cells(header: str, row: str) -> dict[str, str]:
    return next(csv.DictReader(io.StringIO(f"{header}\n{row}\n")))


@pytest.mark.parametrize("form", [{}, {"end": "\r\n"}, {"encoding": "utf-8-sig"}])
@pytest.mark.parametrize("mode", ["clean", "official"])
def test_m3d_vqa(tmp_path, mode, form):
    items = load_benchmark("m3d_vqa", write_m3d(tmp_path, **form), mode=mode)
    assert [item["task"] for item in items] == ["closed", "open"] * 3
    types = {"1": "Plane", "3": "Organ", "5": "Location"}
    for row, closed, opened in zip(M3D_ROWS, items[::2], items[1::2], strict=True):
        stated = cells(M3D_HEADER, row)
        choices = {letter: stated[f"Choice {letter}"] for letter in "ABCD"}
        if mode == "clean":
            choices = {letter: text for letter, text in choices.items() if text != "NA"}
        assert tuple(closed) == tuple(opened) == ITEM_KEYS
        assert closed["choices"] == choices
        assert closed["answer_choice"] == stated["Answer Choice"]
        assert opened["choices"] is opened["answer_choice"] is None
        for item in (closed, opened):
            assert item["image"] == str(tmp_path / stated["Image Path"])
            assert (item["question"], item["answer"]) == (stated["Question"], stated["Answer"])
            assert item["type"] == types[stated["Question Type"]]
    assert LoadVolume()(items[0]["image"]).shape == (1, 8, 8, 32)


def test_tables_with_other_columns_in_another_order(tmp_path):
    """The items equal those of the same rows in the official column order."""
    official = load_benchmark("m3d_vqa", write_m3d(tmp_path))
    order = ["Extra", *reversed(M3D_HEADER.split(","))]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, order)
    writer.writeheader()
    writer.writerows({"Extra": "x", **cells(M3D_HEADER, row)} for row in M3D_ROWS)
    (tmp_path / "M3D-VQA" / "M3D_VQA_test.csv").write_text(stream.getvalue())
    assert load_benchmark("m3d_vqa", tmp_path) == official


def test_ids_do_not_depend_on_mode_task_or_order(tmp_path):
    write_m3d(tmp_path)
    ids = [item["id"] for item in load_benchmark("m3d_vqa", tmp_path)]
    assert len(set(ids)) == 6
    assert [item["id"] for item in load_benchmark("m3d_vqa", tmp_path, mode="official")] == ids
    assert [item["id"] for item in load_benchmark("m3d_vqa", tmp_path, task="open")] == ids[1::2]
    write_m3d(tmp_path, M3D_ROWS[::-1][:2])
    assert [item["id"] for item in load_benchmark("m3d_vqa", tmp_path)] == ids[4:6] + ids[2:4]


@pytest.mark.parametrize("mode", ["clean", "official"])
def test_rad3d_tables(tmp_path, mode):
    size, first, second = load_benchmark("rad3d", write_rad3d(tmp_path), mode=mode)
    assert (size["task"], size["type"], size["subtype"]) == ("open", "Medical_Computation", "Size")
    assert (size["choices"], size["answer_choice"], size["answer"]) == (None, None, "6x4 mm")
    assert (first["task"], first["type"], first["subtype"]) == ("closed", "Existence_Detection", "Atelectasis")
    absent = {} if mode == "clean" else {"C": "-", "D": "-"}
    assert first["choices"] == {"A": "Yes", "B": "No", **absent}
    assert [first["answer_choice"], second["answer_choice"]] == ["B", "A"]
    assert first["image"] == str(tmp_path / "valid_1000_a_1.nii.gz")
    nested = str(tmp_path / "valid_fixed/valid_7/valid_7_a/valid_7_a_2.nii.gz")
    assert second["image"] == size["image"] == nested


def test_rad3d_names():
    assert ct_rate_names("test_1000_a_1")[:2] == ("test_1000_a_1.nii.gz", "valid_1000_a_1.nii.gz")
    assert ct_rate_names("test_10_b_2.nii.gz")[2] == "valid_10/valid_10_b/valid_10_b_2.nii.gz"
    assert "dataset/train/train_5/train_5_c/train_5_c_1.nii.gz" in ct_rate_names("train_5_c_1.nii.gz")
    assert ct_rate_names("mine") == ("mine.nii.gz",)


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.npy", "x/1.png"])
@pytest.mark.parametrize("stem", ["test_1000_a_1", "valid_1000_a_1"])
def test_images_are_found_in_every_format(tmp_path, stem, name):
    write_table(
        tmp_path / "test/Task4_Existence_Detection/A.csv",
        RAD_HEADER,
        RAD_ROWS["Task4_Existence_Detection/Atelectasis"][:1],
    )
    touch(tmp_path / "volumes", name.replace("x", stem, 1))
    (item,) = load_benchmark("rad3d", tmp_path, images=tmp_path / "volumes")
    assert item["image"] == str(tmp_path / "volumes" / name.replace("x", stem, 1).removesuffix("/1.png"))


def test_rad3d_of_meduni_eval(tmp_path):
    entries = [
        conversation(
            "Is there a nodule? Choices: A. Yes B. No C. - D. -",
            "B. No",
            "v/1",
            Question_Type="Close",
            type="Existence_Detection",
            **{"sub-type": "Lung nodule"},
        ),
        conversation("What is the size?", "6x4 mm", "v/1", Question_Type="Open", type="Medical_Computation"),
    ]
    write_json(tmp_path / "Rad3D_test.json", entries)
    (tmp_path / "v/1").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "v/1/0.png")
    closed, opened = load_benchmark("rad3d", tmp_path)
    assert (closed["question"], closed["choices"]) == ("Is there a nodule?", {"A": "Yes", "B": "No"})
    assert (closed["answer"], closed["answer_choice"]) == ("No", "B")
    assert (closed["type"], closed["subtype"]) == ("Existence_Detection", "Lung nodule")
    assert (opened["question"], opened["choices"], opened["task"]) == ("What is the size?", None, "open")
    assert closed["image"] == str(tmp_path / "v/1")
    official = load_benchmark("rad3d", tmp_path, mode="official")
    assert official[0]["question"] == "Is there a nodule? Choices: A. Yes B. No C. - D. -"
    assert [item["id"] for item in official] == [closed["id"], opened["id"]]


LUNGS = {"A": "Left lung", "B": "Right lung"}


@pytest.mark.parametrize(
    ("text", "question", "choices"),
    [
        ("Where?\nA. Left lung\nB. Right lung", "Where?", {"A": "Left lung", "B": "Right lung"}),
        ("Where? Options: (A) x (B) y", "Where?", {"A": "x", "B": "y"}),
        ("Where? A) x y B) z", "Where?", {"A": "x y", "B": "z"}),
        ("Is it there?\nA.Yes\nB.No", "Is it there?", {"A": "Yes", "B": "No"}),
        ("Is it there? A.Yes B.No", "Is it there?", {"A": "Yes", "B": "No"}),
        ("Is it there?\n(A)Yes\n(B)No", "Is it there?", {"A": "Yes", "B": "No"}),
        ("Is it there?\r\na. yes\r\nb. no", "Is it there?", {"A": "yes", "B": "no"}),
        ("Is it there? a) yes b) no", "Is it there?", {"A": "yes", "B": "no"}),
        ("Is it there?\nA: Yes\nB: No", "Is it there?", {"A": "Yes", "B": "No"}),
        ("Is it there?\nA Yes\nB No", "Is it there?", {"A": "Yes", "B": "No"}),
        ("Is it there?\n**A.** Yes\n**B.** No", "Is it there?", {"A": "Yes", "B": "No"}),
        ("Is it there? [A] Yes [B] No", "Is it there?", {"A": "Yes", "B": "No"}),
        ("Is it there?\nA、Yes\nB、No", "Is it there?", {"A": "Yes", "B": "No"}),
        ("Is it A. or B.?\nChoices:\n  A.Yes\n  B.No\n", "Is it A. or B.?", {"A": "Yes", "B": "No"}),
        ("Is it there?\nA.Yes\nB.No\nC.\nD.", "Is it there?", {"A": "Yes", "B": "No", "C": "", "D": ""}),
        ("Is it there?\nA.Yes\nB.No\nPlease answer with the letter.", "Is it there?", {"A": "Yes", "B": "No"}),
        ("In the A.P. view, where? A.Left lung B.Right lung", "In the A.P. view, where?", LUNGS),
        ("Where?\nA.Left\nlung\nB.Right\nlung", "Where?", {"A": "Left\nlung", "B": "Right\nlung"}),
        ("Is it hepatitis B. A. Yes B. No", None, {}),
        ("Is it hepatitis B.\nA. Yes\nB. No", "Is it hepatitis B.", {"A": "Yes", "B": "No"}),
        ("Grade A. B. C.", None, {}),
        ("Where? A. x C. y", None, {}),
        ("Which vitamin?\nA lesion is seen", None, {}),
        ("Is it?", None, {}),
    ],
)
def test_split_choices(text, question, choices):
    assert split_choices(text) == (question or text, choices)


@pytest.mark.parametrize(
    ("answer", "letter", "text"),
    [
        ("B", "B", "No"),
        ("b.", "B", "No"),
        ("B. No", "B", "No"),
        ("(B) No", "B", "No"),
        ("No", "B", "No"),
        ("no", "B", "No"),
        ("B.No", "B", "No"),
        ("(B)No", "B", "No"),
        ("**B**", "B", "No"),
        ("Option B", "B", "No"),
        ("Both", None, "Both"),
    ],
)
def test_split_answer(answer, letter, text):
    assert split_answer(answer, {"A": "Yes", "B": "No"}) == (letter, text)


#: a closed question as MedUniEval's files write it, as the release's demonstration shows; and one without choices
RELEASED = "Does this CT image present medical material?\nA.Yes\nB.No"
UNLISTED = "Medical material: yes (A) or no (B)?"
LETTER = "\nAnswer with the option's letter from the given choices directly."


def write_meduni(folder: Path, name: str, *questions: tuple[str, str, str], type="4") -> list[dict]:
    """Write conversations about one folder of slices: question, answer and "Close" or "Open"."""
    touch(folder, "ct_quizze/008799/Axial_C__arterial_phase/0.png")
    video = "ct_quizze/008799/Axial_C__arterial_phase"
    items = [conversation(one, answer, video, Question_Type=kind, type=type) for one, answer, kind in questions]
    write_json(folder / name, items)
    return items


@pytest.mark.parametrize(("benchmark", "name"), [("m3d_vqa", "M3D_test.json"), ("rad3d", "Rad3D_test.json")])
def test_closed_questions_of_meduni_eval_are_asked_as_closed(tmp_path, benchmark, name):
    """In the official mode exactly as MedUniEval asks them: the question as it stands, then its instruction."""
    questions = [(RELEASED, "B.No", "CLOSED"), (UNLISTED, "A", "Close"), ("What is it?", "A stent.", "OPEN")]
    write_meduni(tmp_path, name, *questions)
    plan = find_protocol("meduni-vqa")
    official = [item_prompt(item, plan) for item in load_benchmark(benchmark, tmp_path, mode="official")]
    assert official == [
        RELEASED + LETTER,
        UNLISTED + LETTER,
        "What is it?\nPlease answer the question concisely.",
    ]
    listed, unlisted, opened = load_benchmark(benchmark, tmp_path)
    assert (listed["answer_choice"], listed["choices"]) == ("B", {"A": "Yes", "B": "No"})
    asked = item_prompt(listed, plan)
    assert asked == f"Does this CT image present medical material? Choices: A. Yes B. No{LETTER}"
    assert (unlisted["task"], unlisted["choices"], unlisted["answer_choice"]) == ("closed", None, "A")
    assert item_prompt(unlisted, plan) == official[1]
    assert item_prompt(opened, plan) == official[2]


def test_instruction_is_not_given_twice(tmp_path):
    write_meduni(tmp_path, "M3D_test.json", (RELEASED + LETTER, "A.Yes", "Close"))
    for mode, asked in (("official", RELEASED), ("clean", RELEASED.replace("\nA.Yes\nB.No", " Choices: A. Yes B. No"))):
        (item,) = load_benchmark("m3d_vqa", tmp_path, mode=mode)
        assert item_prompt(item, find_protocol("meduni-vqa")) == asked + LETTER


@pytest.mark.parametrize("mode", ["clean", "official"])
def test_closed_rows_of_a_table_whose_choices_stand_in_the_question(tmp_path, mode, caplog):
    rows = [
        'M3D_Cap_npy/1/Axial.npy,,1,"What plane?\nA.Axial\nB.Coronal",NA,NA,NA,NA,Axial,A',
        "M3D_Cap_npy/1/Axial.npy,,1,What plane?,NA,NA,NA,NA,Axial,A",
    ]
    listed, unknown = load_benchmark("m3d_vqa", write_m3d(tmp_path, rows), task="closed", mode=mode)
    assert listed["choices"] == {"A": "Axial", "B": "Coronal"}
    plan = find_protocol("meduni-vqa")
    written = "\nA.Axial\nB.Coronal" if mode == "official" else " Choices: A. Axial B. Coronal"
    assert item_prompt(listed, plan) == f"What plane?{written}{LETTER}"
    if mode == "clean":
        assert item_prompt(unknown, plan) == f"What plane?{LETTER}"
    assert "1 closed questions whose choices were not found" in caplog.text


def test_own_question_with_a_letter_is_closed(tmp_path):
    text = 'image,question,answer,answer_choice\na.nii.gz,"Is it? (A)Yes (B)No",No,B\na.nii.gz,What?,A cyst,-\n'
    closed, opened = load_benchmark("question_table", write_own(tmp_path, text))
    assert (closed["task"], closed["question"], closed["choices"]) == ("closed", "Is it?", {"A": "Yes", "B": "No"})
    assert opened["task"] == "open"


def test_m3d_of_meduni_eval(tmp_path):
    write_meduni(tmp_path, "M3D_test.json", (RELEASED, "A.Yes", "Close"), type=4)
    (item,) = load_benchmark("m3d_vqa", tmp_path)
    assert (item["type"], item["answer"]) == ("Abnormality", "Yes")
    assert item["image"] == str(tmp_path / "ct_quizze/008799/Axial_C__arterial_phase")
    write_m3d(tmp_path)
    with pytest.raises(BenchmarkError, match=r"several annotation files.*M3D_test.json"):
        load_benchmark("m3d_vqa", tmp_path)
    assert load_benchmark("m3d_vqa", tmp_path, annotations="M3D_test.json") == [item]


IMPRESSION = {"chest": [], "abdomen": ["Splenomegaly.", "No stones. "], "pelvis": ["Normal."]}


def write_amos_files(folder: Path) -> tuple[dict, dict]:
    """Write the two files of the data set; the questions have another order and one study of their own."""
    own = json.loads((write_amos(folder) / "dataset.json").read_text())["validation"][0]
    (folder / "dataset.json").unlink()
    findings, questions = own["labels"]["report"]["findings"], own["labels"]["qa"]
    touch(folder, "imagesVa/amos_0003.nii.gz")

    def split(labels):
        entries = [{"image": f"imagesVa/amos_000{n}.nii.gz", "meta": {}, "labels": one} for n, one in labels.items()]
        return {"licence": "", "training": [], "validation": entries}

    reports = split(
        {1: {"report": {"findings": findings, "impression": IMPRESSION}}, 2: {"report": {"findings": findings}}}
    )
    asked = split({3: {"qa": questions[:1]}, 1: {"qa": questions}})
    write_json(folder / "report_generation_train_val.json", reports)
    write_json(folder / "vqa_train_val.json", asked)
    return reports, asked


def test_amos_mm_in_two_files(tmp_path, caplog):
    """Joined by study, in the order of the reports; the reference holds findings and impression."""
    write_amos_files(tmp_path)
    report, first, second, other, alone = load_benchmark("amos_mm", tmp_path)
    text = "The spleen is enlarged.\nNormal."
    assert report["answer"] == f"{text}\nSplenomegaly. No stones.\nNormal."
    assert "findings and impression" in report["question"]
    assert (first["answer"], second["answer"]) == ("Spleen", "Liver")
    assert {Path(one["image"]).name for one in (report, first, second)} == {"amos_0001.nii.gz"}
    assert (other["answer"], Path(other["image"]).name) == (text, "amos_0002.nii.gz")
    assert "impression" not in other["question"]
    assert (alone["task"], Path(alone["image"]).name) == ("closed", "amos_0003.nii.gz")
    assert "1 reports without an impression" in caplog.text
    assert [one["task"] for one in load_benchmark("amos_mm", tmp_path, task="report")] == ["report", "report"]
    chosen = load_benchmark("amos_mm", tmp_path, annotations="vqa_train_val.json")
    assert [one["question"] for one in chosen] == [alone["question"], first["question"], second["question"]]
    (tmp_path / "vqa_train_val.json").unlink()
    assert load_benchmark("amos_mm", tmp_path) == [report, other]


@pytest.mark.parametrize("impression", ["A cyst.", ["A cyst."], {"abdomen": "A cyst.", "pelvis": ""}])
def test_forms_of_an_impression(tmp_path, impression):
    labels = {"report": {"findings": {"abdomen": "A cyst is seen."}, "impression": impression}}
    touch(tmp_path, "a.nii.gz")
    write_json(tmp_path / "dataset.json", {"validation": [{"image": "a.nii.gz", "labels": labels}]})
    (report,) = load_benchmark("amos_mm", tmp_path)
    assert report["answer"] == "A cyst is seen.\nA cyst."


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda reports, asked: reports["validation"].append(reports["validation"][0]),
            "amos_0001.* is in the file twice",
        ),
        (lambda reports, asked: asked["validation"][1]["labels"].update(report={}), r"\['report'\] of amos_0001"),
        (lambda reports, asked: (reports.pop("validation"), asked.pop("validation")), "under 'validation'"),
        (lambda reports, asked: reports["validation"][0]["labels"]["report"].update(impression=5), "found int"),
        (lambda reports, asked: reports["validation"][0]["labels"]["report"].update(findings={"head": "x"}), "regions"),
    ],
    ids=["study twice", "both files", "no split", "no text", "no region"],
)
def test_broken_amos_files(tmp_path, edit, message):
    reports, asked = write_amos_files(tmp_path)
    edit(reports, asked)
    write_json(tmp_path / "report_generation_train_val.json", reports)
    write_json(tmp_path / "vqa_train_val.json", asked)
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark("amos_mm", tmp_path)


def test_amos_mm(tmp_path, caplog):
    report, first, second = load_benchmark("amos_mm", write_amos(tmp_path))
    assert (report["task"], report["answer"]) == ("report", "The spleen is enlarged.\nNormal.")
    assert report["choices"] is report["answer_choice"] is None
    assert (first["answer"], first["answer_choice"], first["type"]) == ("Spleen", "B", "perception")
    assert (second["answer"], second["answer_choice"]) == ("Liver", "A")
    assert first["choices"] == {"A": "Liver", "B": "Spleen"}
    assert {Path(item["image"]) for item in (report, first)} == {tmp_path / "imagesVa/amos_0001.nii.gz"}
    assert "1 volumes without findings" in caplog.text
    assert load_benchmark("amos_mm", tmp_path, task="report") == [report]
    with pytest.raises(BenchmarkError, match="testing 0: no 'labels'"):
        load_benchmark("amos_mm", tmp_path, split="testing")


@pytest.mark.parametrize("place", ["", "MM"])
def test_amos_mm_of_meduni_eval(tmp_path, place):
    folder = tmp_path / place
    touch(folder, "amos_test_crop_32/amos_0001/0.png")
    entry = conversation("Report?", "Findings: none. Impression: normal.", "amos_test_crop_32/amos_0001")
    write_json(folder / "amos_val_mrg_sft.json", [entry])
    (item,) = load_benchmark("amos_mm", tmp_path)
    assert (item["task"], item["question"], item["answer"]) == ("report", "Report?", entry["conversations"][1]["value"])
    assert item["image"] == str(folder / "amos_test_crop_32/amos_0001")


def test_question_table(tmp_path):
    closed, opened = load_benchmark("question_table", write_own(tmp_path))
    assert closed == {
        "image": str(tmp_path / "a.nii.gz"),
        "question": "Is it, then?",
        "choices": {"A": "Yes", "B": "No"},
        "answer": "No",
        "answer_choice": "B",
        "type": "detection",
        "subtype": "",
        "id": "q1",
        "task": "closed",
    }
    assert (opened["task"], opened["choices"], opened["id"]) == ("open", None, "q2")
    lines = [
        {"image": "a.nii.gz", "question": "Is it, then?", "choices": {"A": "Yes", "B": "No"}, "answer": "No"}
        | {"answer_choice": "B", "type": "detection", "id": "q1"},
        {"image": "a.nii.gz", "question": "What is it?", "answer": "A cyst", "id": "q2"},
    ]
    (tmp_path / "mine.csv").unlink()
    (tmp_path / "mine.jsonl").write_text("\ufeff" + "\n\n".join(map(json.dumps, lines)) + "\r\n", encoding="utf-8")
    assert load_benchmark("question_table", tmp_path) == [closed, opened]


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


M3D_TABLE = "M3D-VQA/M3D_VQA_test.csv"
RAD_TABLE = "3DRAD/test/Task4_Existence_Detection/Atelectasis.csv"
# name -> benchmark, writer, function that breaks the folder, pattern of the message
BROKEN = {
    "missing image": (
        "m3d_vqa",
        write_m3d,
        lambda f: (f / "M3D_Cap_npy/2/Cor.npy").unlink(),
        "1 images of 2 .*Cor.npy",
    ),
    "missing table": ("m3d_vqa", write_m3d, lambda f: (f / M3D_TABLE).unlink(), "does not contain M3D_VQA_test.csv"),
    "missing column": ("m3d_vqa", write_m3d, lambda f: replace(f / M3D_TABLE, "Choice C", "C"), "lacks.*'Choice C'"),
    "column twice": (
        "m3d_vqa",
        write_m3d,
        lambda f: replace(f / M3D_TABLE, "Text", "Question"),
        "has a duplicate column",
    ),
    "short row": (
        "m3d_vqa",
        write_m3d,
        lambda f: replace(f / M3D_TABLE, ",Axial,A", ",A"),
        "line 2: expected 10 cells",
    ),
    "open quote": ("m3d_vqa", write_m3d, lambda f: replace(f / M3D_TABLE, 'mainly?"', "mainly?"), "unexpected end"),
    "not UTF-8": (
        "m3d_vqa",
        write_m3d,
        lambda f: write_m3d(f, [M3D_ROWS[0].replace("a text", "é")], encoding="latin-1"),
        "cannot be read as a CSV file",
    ),
    "wrong type": ("m3d_vqa", write_m3d, lambda f: replace(f / M3D_TABLE, ",5,", ",6,"), "line 4: question type.*'6'"),
    "empty answer": (
        "m3d_vqa",
        write_m3d,
        lambda f: replace(f / M3D_TABLE, "Axial,A", " ,A"),
        "2: the answer is empty",
    ),
    "no letter": ("m3d_vqa", write_m3d, lambda f: replace(f / M3D_TABLE, "Axial,A", "Axial,AB"), "line 2:.*'AB'"),
    "no questions": ("m3d_vqa", write_m3d, lambda f: write_m3d(f, []), "no  questions"),
    "two tables": (
        "m3d_vqa",
        write_m3d,
        lambda f: touch(f, "M3D_VQA_test.csv"),
        "several annotation files.*Choose one with annotations",
    ),
    "two formats": ("rad3d", write_rad3d, lambda f: touch(f, "test_7_a_2/0.png", "test_7_a_2.npy"), None),
    "dash for an answer": (
        "rad3d",
        write_rad3d,
        lambda f: replace(f / RAD_TABLE, "Yes,Close", "-,Close"),
        "line 3: the",
    ),
    "question type": ("rad3d", write_rad3d, lambda f: replace(f / RAD_TABLE, "Close", "Shut"), "line 2: QuestionType"),
    "no volume": (
        "rad3d",
        write_rad3d,
        lambda f: replace(f / RAD_TABLE, "test_7_a_2.nii.gz", ""),
        "3: the image is empty",
    ),
    "no tables": ("rad3d", write_rad3d, lambda f: [i.unlink() for i in f.rglob("*.csv")], "does not contain TaskN"),
    "bad JSON": ("amos_mm", write_amos, lambda f: replace(f / "dataset.json", '"qa"', "qa"), "line 1: not JSON"),
    "no text": ("amos_mm", write_amos, lambda f: replace(f / "dataset.json", '"Normal."', "5"), "'pelvis', found int"),
    "unclear letter": (
        "amos_mm",
        write_amos,
        lambda f: replace(f / "dataset.json", '"answer": "B"', '"answer": "Both"'),
        "qa 0:",
    ),
    "wrong split": (
        "amos_mm",
        write_amos,
        lambda f: write_json(f / "dataset.json", {"test": []}),
        "under 'validation'",
    ),
    "id twice": (
        "question_table",
        write_own,
        lambda f: replace(f / "mine.csv", "q2", "q1"),
        "line 3: the id 'q1'.*line 2",
    ),
    "wrong task": (
        "question_table",
        write_own,
        lambda f: write_own(f, "image,question,answer,task\na.nii.gz,q,a,closd\n"),
        "line 2: task must be",
    ),
    "no JSON line": (
        "question_table",
        write_own,
        lambda f: (f / "mine.csv").rename(f / "mine.jsonl"),
        "line 1: not JSON",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders(tmp_path, case):
    name, writer, breaking, message = BROKEN[case]
    assert load_benchmark(name, writer(tmp_path))
    breaking(tmp_path)
    if case == "two formats":  # an exact match, here CT-RATE's name, is preferred; without it, the image is ambiguous
        assert load_benchmark(name, tmp_path)
        (tmp_path / "valid_fixed/valid_7/valid_7_a/valid_7_a_2.nii.gz").unlink()
        message = "exists in 2 formats"
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark(name, tmp_path)


def test_missing_images_may_be_kept_but_are_never_replaced(tmp_path, caplog):
    whole = load_benchmark("m3d_vqa", write_m3d(tmp_path))
    (tmp_path / "M3D_Cap_npy/2/Cor.npy").unlink()
    with pytest.raises(MissingImagesError, match=r"1 images of 2 items are missing: .*Cor.npy"):
        load_benchmark("m3d_vqa", tmp_path)
    assert load_benchmark("m3d_vqa", tmp_path, missing_images="keep") == whole
    assert "1 images of 2 items are missing" in caplog.text


def test_missing_images_are_counted_and_the_first_are_named(tmp_path):
    rows = [M3D_ROWS[0].replace("Axial.npy", f"{number}.npy") for number in range(40)]
    with pytest.raises(
        MissingImagesError, match=r"40 images of 80 items are missing: \S+/0.npy, \S+/1.npy, \S+/2.npy, …"
    ):
        load_benchmark("m3d_vqa", write_m3d(tmp_path, rows))


def test_duplicate_rows_are_kept_and_logged(tmp_path, caplog):
    """Nine rows of the official 3D-RAD test tables are duplicates."""
    items = load_benchmark("m3d_vqa", write_m3d(tmp_path, [*M3D_ROWS, M3D_ROWS[1]]), task="closed")
    assert len(items) == len({item["id"] for item in items}) == 4
    assert {**items[3], "id": items[1]["id"]} == items[1]
    assert "line 5" in caplog.text
    assert "rows that repeat an earlier row" in caplog.text


@pytest.mark.parametrize(("answer", "choice"), [("Right kidney", "B"), ("Left  kidney", "C"), ("Left  kidney", "E")])
def test_answers_that_differ_from_their_choice_are_kept_and_logged(tmp_path, caplog, answer, choice):
    row = M3D_ROWS[1].replace("Left  kidney,B", f"{answer},{choice}")
    with caplog.at_level(logging.WARNING):
        closed, _ = load_benchmark("m3d_vqa", write_m3d(tmp_path, [row]))
    assert (closed["answer"], closed["answer_choice"]) == (answer, choice)
    assert "1 answers that differ from the text of their choice" in caplog.text
    assert "line 2" in caplog.text


def test_valid_files_log_nothing(tmp_path, caplog):
    load_benchmark("m3d_vqa", write_m3d(tmp_path))
    load_benchmark("rad3d", write_rad3d(tmp_path))
    assert caplog.text == ""


def test_annotations_selects_a_table(tmp_path):
    write_m3d(tmp_path)
    write_table(tmp_path / "[other].csv", M3D_HEADER, M3D_ROWS[:1])
    assert len(load_benchmark("m3d_vqa", tmp_path, annotations="[other].csv")) == 2
    with pytest.raises(BenchmarkError, match=r"does not contain absent.csv"):
        load_benchmark("m3d_vqa", tmp_path, annotations="absent.csv")


@pytest.mark.parametrize("settings", [{"task": "both"}, {"mode": "dirty"}, {"missing_images": "drop"}])
@pytest.mark.parametrize("name", BENCHMARKS)
def test_invalid_settings(tmp_path, name, settings):
    writers = {"amos_mm": write_amos, "m3d_vqa": write_m3d, "question_table": write_own, "rad3d": write_rad3d}
    with pytest.raises(SettingsError, match=next(iter(settings))):
        load_benchmark(name, writers[name](tmp_path), **settings)


def test_missing_folders_and_unknown_names(tmp_path):
    with pytest.raises(SettingsError, match=r"'vqa'.*amos_mm, m3d_vqa, question_table, rad3d"):
        load_benchmark("vqa", tmp_path)
    for name in BENCHMARKS:
        with pytest.raises(BenchmarkError, match="is not a folder"):
            load_benchmark(name, tmp_path / "absent")
    with pytest.raises(BenchmarkError, match="images is not a folder"):
        load_benchmark("m3d_vqa", write_m3d(tmp_path), images=tmp_path / "images")
    for name in ("rad3d", "amos_mm"):
        with pytest.raises(SettingsError, match="split"):
            load_benchmark(name, tmp_path, split="val")
