# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Settings read word for word out of a configuration that is being parsed."""

from __future__ import annotations

import sys

import pytest
from monai.bundle import ConfigParser

from monai_medpruner.data import bundle_items, require_items
from monai_medpruner.errors import QuestionError, SettingsError, UnreadableVolumeError


@pytest.fixture
def image(tmp_path):
    (tmp_path / "volume.nii.gz").touch()
    return str(tmp_path / "volume.nii.gz")


def parse(**settings):
    parser = ConfigParser(
        {
            "image": "",
            "question": "",
            "questions_file": "",
            "dataset_dir": "",
            "items": {"_target_": "monai_medpruner.data.bundle_items", "dataset_dir": "@dataset_dir"},
            **settings,
        }
    )
    return parser.get_parsed_content("items")


@pytest.mark.parametrize("question", ["$1 / 0", "@dataset_dir", "$import os", "Größe?", "a, b"])
def test_text_stays_as_it_is(image, question):
    assert parse(image=image, question=question) == [{"image": image, "question": [question]}]


def test_lists(image):
    assert parse(image=[image], question=["$1 / 0", "b?"]) == [{"image": image, "question": ["$1 / 0", "b?"]}]


def test_nothing_given():
    assert parse() == []
    with pytest.raises(SettingsError, match="--image"):
        require_items([])
    assert require_items([{}]) is None


def test_dataset_dir(tmp_path, image):
    assert parse(image="volume.nii.gz", dataset_dir=str(tmp_path), question="?!")[0]["image"] == image
    with pytest.raises(RuntimeError) as raised:
        parse(image="volume.nii.gz", dataset_dir=str(tmp_path / "elsewhere"), question="?!")
    assert isinstance(raised.value.__cause__, UnreadableVolumeError)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"question": 12}, SettingsError),
        ({"question": ("left", "right")}, SettingsError),
        ({"question": {"a": 1}}, SettingsError),
        ({"question": ["a?", 3]}, SettingsError),
        ({"question": ""}, QuestionError),
    ],
    ids=str,
)
def test_values_that_are_no_text(image, settings, error):
    with pytest.raises(RuntimeError) as raised:
        parse(image=image, **settings)
    assert isinstance(raised.value.__cause__, error)


@pytest.mark.parametrize(
    ("written", "arrived", "refused"),
    [
        ("Lesion #3, series 2", "Lesion", True),
        ("Is it?", "Is it?", False),
        ("['a?', 'b?']", ["a?", "b?"], False),
        ('"12"', "12", False),
        ("%settings.json", "something else", True),
    ],
)
@pytest.mark.parametrize("form", ["two words", "one word"])
def test_what_the_command_line_changed(image, monkeypatch, written, arrived, refused, form):
    arguments = ["--question", written] if form == "two words" else [f"--question={written}"]
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *arguments])
    if refused:
        with pytest.raises(RuntimeError) as raised:
            parse(image=image, question=arrived)
        assert isinstance(raised.value.__cause__, SettingsError)
        assert "questions_file" in str(raised.value.__cause__)
    else:
        assert parse(image=image, question=arrived)[0]["question"] == (
            arrived if isinstance(arrived, list) else [arrived]
        )


def test_outside_a_configuration():
    with pytest.raises(SettingsError, match="inside a bundle configuration"):
        bundle_items()
