# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The images and questions of a run, from a configuration's values."""

from __future__ import annotations

import pytest
from monai.bundle import ConfigParser

from monai_medpruner.data import question_items, require_items
from monai_medpruner.errors import QuestionError, SettingsError, UnreadableVolumeError


@pytest.fixture
def image(tmp_path):
    (tmp_path / "volume.nii.gz").touch()
    return str(tmp_path / "volume.nii.gz")


@pytest.mark.parametrize("question", ["$1 / 0", "@dataset_dir", "$import os", "Größe?", "a, b"])
def test_text_stays_as_it_is(image, question):
    assert question_items(image, question) == [{"image": image, "question": [question]}]


def test_lists(image):
    assert question_items([image], ["$1 / 0", "b?"]) == [{"image": image, "question": ["$1 / 0", "b?"]}]


def test_nothing_given():
    assert question_items() == question_items("", "", "", "") == []
    with pytest.raises(SettingsError, match="--image"):
        require_items([])
    assert require_items([{}]) is None


def test_dataset_dir(tmp_path, image):
    assert question_items("volume.nii.gz", "?!", dataset_dir=str(tmp_path))[0]["image"] == image
    with pytest.raises(UnreadableVolumeError):
        question_items("volume.nii.gz", "?!", dataset_dir=str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"question": 12}, SettingsError),
        ({"question": ("left", "right")}, SettingsError),
        ({"question": {"a": 1}}, SettingsError),
        ({"question": ["a?", 3]}, SettingsError),
        ({"question": True}, SettingsError),
        ({"question": "", "questions_file": ""}, QuestionError),
        ({"question": "a?", "image": 5}, SettingsError),
        ({"question": "a?", "image": [5], "dataset_dir": "folder"}, SettingsError),
        ({"questions_file": 5}, SettingsError),
        ({"question": "a?", "missing_images": "hide"}, SettingsError),
    ],
    ids=str,
)
def test_values_that_are_no_text(image, settings, error):
    with pytest.raises(error):
        question_items(**{"image": image, **settings})


def test_in_a_configuration(image):
    config = {
        "image": image,
        "question": ["a?", "b?"],
        "items": {
            "_target_": "monai_medpruner.data.question_items",
            "image": "@image",
            "question": "@question",
        },
    }
    assert ConfigParser(config).get_parsed_content("items") == [{"image": image, "question": ["a?", "b?"]}]


def test_images_that_do_not_exist_are_listed_where_asked_for(tmp_path, image):
    """Of the arguments, a table and a file of questions."""
    (tmp_path / "table.csv").write_text("image,question\ngone.nii,a?\n", encoding="utf-8")
    (tmp_path / "questions.jsonl").write_text('{"question": "b?", "image": "lost.nii"}\n', encoding="utf-8")
    images, file = [image, str(tmp_path / "table.csv"), "absent"], str(tmp_path / "questions.jsonl")
    found = question_items(images, "c?", file, missing_images="keep")
    assert found == [
        {"image": image, "question": ["c?"]},
        {"image": str(tmp_path / "gone.nii"), "question": ["a?", "c?"]},
        {"image": "absent", "question": ["c?"]},
        {"image": str(tmp_path / "lost.nii"), "question": ["b?"]},
    ]
    with pytest.raises(UnreadableVolumeError, match=r"gone\.nii does not exist"):
        question_items(images, "c?", file)
