# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Images and questions from arguments and files."""

from __future__ import annotations

import json
import os

import pytest

from monai_medpruner.data import image_items, pair_questions
from monai_medpruner.errors import QuestionError, SettingsError, UnreadableVolumeError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz", "c#1, d.nii"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "series").mkdir()
    return tmp_path


def write_csv(folder, text):
    (folder / "list.csv").write_text(text, encoding="utf-8-sig")
    return str(folder / "list.csv")


def write_jsonl(folder, *lines):
    path = folder / "questions.jsonl"
    path.write_text("\n".join(i if isinstance(i, str) else json.dumps(i, ensure_ascii=False) for i in lines))
    return str(path)


@pytest.mark.parametrize("nothing", [None, "", []])
def test_no_image(nothing):
    assert image_items(nothing) == []
    assert pair_questions(image_items(nothing), "Is there a lesion?") == []


def test_paths_as_given(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert image_items("a.nii.gz") == [{"image": "a.nii.gz"}]
    assert image_items(["series", "./a.nii.gz"]) == [{"image": "series"}, {"image": "./a.nii.gz"}]


def test_csv(folder, monkeypatch):
    monkeypatch.chdir(os.sep)
    path = write_csv(folder, f'site,image,question\nA,a.nii.gz,"Where, and how?"\nB,{folder / "series"},\n')
    assert image_items([path, str(folder / "b.nii.gz")]) == [
        {"site": "A", "image": str(folder / "a.nii.gz"), "question": "Where, and how?"},
        {"site": "B", "image": str(folder / "series"), "question": ""},
        {"image": str(folder / "b.nii.gz")},
    ]


@pytest.mark.parametrize("image", [5, ("a", 5), {"image": "a"}, ["a", None], [""], True, 1.5])
def test_image_must_be_text(image):
    with pytest.raises(SettingsError, match=r"path or a list of paths.*--questions_file"):
        image_items(image)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\na.nii.gz\n", "column 'image'"),
        ("", "column 'image'"),
        ("image,question\na.nii.gz,x,y\n", "line 2"),
        ("image,question\na.nii.gz,x\nb.nii.gz\n", "line 3"),
        ("image,question\n,x\n", "line 2"),
    ],
)
def test_malformed_csv(folder, text, message):
    with pytest.raises(SettingsError, match=message):
        image_items(write_csv(folder, text))


def test_missing_files_are_named(folder):
    with pytest.raises(UnreadableVolumeError, match=r"absent\.nii does not exist"):
        image_items([str(folder / "a.nii.gz"), "absent.nii"])
    with pytest.raises(UnreadableVolumeError, match=r"absent\.nii does not exist"):
        image_items(write_csv(folder, "image\nabsent.nii\n"))
    with pytest.raises(UnreadableVolumeError, match=r"line 1: .*absent\.nii does not exist"):
        pair_questions([], None, write_jsonl(folder, {"question": "a?", "image": "absent.nii"}))
    with pytest.raises(SettingsError, match=r"absent\.csv cannot be read"):
        image_items("absent.csv")
    with pytest.raises(SettingsError, match=r"absent\.jsonl cannot be read"):
        pair_questions([], None, "absent.jsonl")


def test_questions_apply_to_every_image(folder):
    images = [{"image": "a"}, {"image": "b"}]
    assert pair_questions(images, "one?") == [{"image": i, "question": ["one?"]} for i in "ab"]
    assert pair_questions(images, ["one?", "two?"]) == [{"image": i, "question": ["one?", "two?"]} for i in "ab"]


def test_questions_are_grouped_by_image_in_order(folder, monkeypatch):
    monkeypatch.chdir(folder)
    path = write_jsonl(
        folder,
        {"question": "all 1?"},
        "",
        {"question": "b #3, 50 % @ $5?", "image": "b.nii.gz"},
        {"question": "new ü?", "image": "c#1, d.nii"},
        {"question": "all 2?"},
    )
    images = [{"image": "a.nii.gz", "question": "own?"}, {"image": "b.nii.gz"}, {"image": "./a.nii.gz"}]
    assert pair_questions(images, "shared?", path) == [
        {"image": "a.nii.gz", "question": ["own?", "shared?", "all 1?", "all 2?"]},
        {"image": "b.nii.gz", "question": ["shared?", "all 1?", "b #3, 50 % @ $5?", "all 2?"]},
        {"image": str(folder / "c#1, d.nii"), "question": ["new ü?"]},
    ]


def test_ids_stay_with_their_questions(folder):
    a, b = str(folder / "a.nii.gz"), str(folder / "b.nii.gz")
    path = write_jsonl(folder, {"question": "x?", "id": "q7"}, {"question": "y?", "image": "b.nii.gz"})
    assert pair_questions([{"image": a}, {"image": b}], None, path) == [
        {"image": a, "question": ["x?"], "question_id": ["q7"]},
        {"image": b, "question": ["x?", "y?"], "question_id": ["q7", None]},
    ]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("x" * 20_001, "20001 characters; the maximum is 20000"),
        (12, "found int.*--questions_file"),
        (("left", 3), "found int.*--questions_file"),
        ({"a": 1}, "found dict"),
        (["a?", None], "found NoneType"),
        (True, "found bool"),
        ("\ud800", "surrogate"),
    ],
)
def test_invalid_questions(question, message):
    with pytest.raises(QuestionError, match=message):
        pair_questions([{"image": "a"}], question)


def test_longest_question():
    assert len(pair_questions([{"image": "a"}], "x" * 20_000)[0]["question"][0]) == 20_000


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("{'question': 'a?'}", SettingsError, "not JSON"),
        ('"a?"', SettingsError, "expected"),
        ({"text": "a?"}, SettingsError, "expected"),
        ({"question": "a?", "img": "a"}, SettingsError, "expected"),
        ({"question": "a?", "image": 5}, SettingsError, "must be text"),
        ({"question": "a?", "id": 5}, SettingsError, "must be text"),
        ({"question": 5}, QuestionError, "found int"),
        ({"question": ""}, QuestionError, "empty"),
    ],
)
def test_errors_name_the_invalid_line(folder, line, error, message):
    path = write_jsonl(folder, {"question": "good?"}, "", line)
    with pytest.raises(error, match=rf"questions\.jsonl, line 3: .*{message}"):
        pair_questions([{"image": "a"}], None, path)


def test_every_image_has_a_question_and_every_question_an_image(folder):
    path = write_jsonl(folder, {"question": "a?", "image": "a.nii.gz"})
    with pytest.raises(QuestionError, match="1 of 2 images; the first is number 1"):
        pair_questions([{"image": str(folder / "b.nii.gz")}], None, path)
    with pytest.raises(QuestionError, match="1 of 1 images"):
        pair_questions([{"image": "a"}])
    with pytest.raises(SettingsError, match="line 1: the question has no image"):
        pair_questions([], None, write_jsonl(folder, {"question": "a?"}))


def test_questions_file_is_text():
    with pytest.raises(SettingsError, match="questions_file must be a path"):
        pair_questions([{"image": "a"}], None, {"question": "a?"})
