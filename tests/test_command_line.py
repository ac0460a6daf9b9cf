# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Texts on MONAI's command line that it would execute, replace or change."""

from __future__ import annotations

import sys

import pytest
from monai.bundle import ConfigParser

from monai_medpruner.command_line import check_texts, optional
from monai_medpruner.errors import SettingsError

NAMES = ["image", "question", "output_dir"]


@pytest.fixture(params=["two words", "one word", "one dash", "with dashes"])
def write(request, monkeypatch):
    """Return a function: setting and text -> the command line of MONAI with it, in one of the forms that fire takes."""

    def write(name, text):
        forms = {
            "two words": [f"--{name}", text],
            "one word": [f"--{name}={text}"],
            "one dash": [f"-{name}", text],
            "with dashes": [f"--{name.replace('_', '-')}", text],
        }
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "--tau", "0.5", *forms[request.param], "--gamma", "1"])

    return write


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$__import__('os').abort()", "would be executed"),
        ("$print(1) or 5", "would be executed"),
        ("['a?', '$print(1)']", "would be executed"),
        ("@gamma", "would be replaced"),
        ("%settings.json", "would be replaced"),
        ("mail@::tau", "would be replaced"),
        ("Lesion #3, series 2", "cut off"),
        ("What's #3?", "would become ::"),
        ("'Lesion' #3", "cut off"),
        ("left, right", "type tuple"),
        ("12", "type int"),
        ("None", "type NoneType"),
        ("True", "type bool"),
        ("{'_target_': 'os.abort'}", "type dict"),
        ("['a?', 3]", "type list"),
        ("[a, b]", "it would become"),
        ("'a?' 'b?'", None),
        ("(yes)", "it would become 'yes'"),
    ],
)
def test_what_would_not_arrive_is_refused(write, text, reason):
    write("question", text)
    if reason is None:
        assert check_texts(NAMES) is None
        return
    with pytest.raises(SettingsError, match="MONAI would not read --question as the text that was given") as raised:
        check_texts(NAMES)
    assert reason in str(raised.value)
    assert "--questions_file" in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "Is it?",
        "Größe?",
        "a $ b",
        "me@home?",
        "100 %",
        "['a?', 'b?']",
        '["a?"]',
        '"12"',
        "'left, right'",
        "none",
        "",
        "x:y",
    ],
)
def test_what_arrives_as_written_passes(write, text):
    write("question", text)
    assert check_texts(NAMES) is None


@pytest.mark.parametrize("text", ["/data/a#1/b", "2024", "a,b", "$print(1)"])
def test_paths(write, text):
    write("output_dir", text)
    with pytest.raises(SettingsError, match="MONAI would not read --output_dir as the text") as raised:
        check_texts(NAMES)
    assert "questions_file" not in str(raised.value)
    assert check_texts(["image"]) is None


def test_parts_of_a_list(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "--question", "['a?']", "--question::0", "$print(1)"])
    with pytest.raises(SettingsError):
        check_texts(NAMES)


@pytest.mark.parametrize("words", [[], ["--gamma", "$1"], ["--question"], ["question", "$1"]])
def test_what_is_not_there_is_not_checked(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *words])
    assert check_texts(NAMES) is None


@pytest.mark.parametrize(
    "bundle", ["medpruner_hulumed", "medpruner_medgemma", "medpruner_phantom", "medpruner_qwen3vl"]
)
def test_every_bundle_checks_before_anything_else(repository, bundle, monkeypatch, tmp_path):
    parser = ConfigParser(ConfigParser.load_config_file(repository / "bundles" / bundle / "configs" / "inference.json"))
    text = f"$open({str(tmp_path / 'executed')!r}, 'w')"
    parser["question"] = text
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "--question", text])
    with pytest.raises(RuntimeError) as raised:
        parser.get_parsed_content("initialize::0")
    assert isinstance(raised.value.__cause__, SettingsError)
    assert not (tmp_path / "executed").exists()
    checked = {"image", "question", "questions_file", "dataset_dir", "output_dir", "model_id"}
    assert checked <= set(parser["command_line_texts"])


@pytest.mark.parametrize(("value", "expected"), [("none", None), (None, None), (0.5, 0.5), ("auto", "auto"), (0, 0)])
def test_optional(value, expected):
    assert optional(value) == expected
