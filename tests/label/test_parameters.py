# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Parameters of a request."""

from __future__ import annotations

import pytest

from monai_medpruner.errors import RequestError
from monai_medpruner.label.parameters import (
    AskParameters,
    OverlayParameters,
    ask_parameters,
    check_identifier,
    overlay_parameters,
    parse_parameters,
    report_parameters,
)

TURN = {"question": "a?", "answer": "b"}
CLIENT = {"client_id": None, "result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}


def test_question_and_history():
    text = "$__import__('os').abort() or @gamma %x.json #3, 'links' 肺?"
    assert ask_parameters({"question": text, **CLIENT}) == AskParameters(text)
    asked = ask_parameters({"question": "c?", "history": [TURN, {"question": "d?", "answer": "e"}]})
    assert asked.history == (("a?", "b"), ("d?", "e"))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "question must be text, got nothing"),
        ({"question": 3}, "got int"),
        ({"question": ["a?"]}, "got list"),
        ({"question": " \n"}, "is empty"),
        ({"question": "x" * 20_001}, "more than 20000"),
        ({"question": "a\ud800?"}, "surrogate"),
        ({"question": "a?", "history": "b"}, "history must be a list"),
        ({"question": "a?", "history": ["b"]}, "history must be a list"),
        ({"question": "a?", "history": [TURN] * 33}, "33 turns"),
        ({"question": "a?", "history": [{"question": "b?"}]}, "turn 0"),
        ({"question": "a?", "history": [TURN, {"question": "b?", "answer": 1}]}, "turn 1: answer must be text"),
        ({"question": "a?", "model_id": "x"}, "1 unknown parameter"),
        ({"question": "a?", "tau": "0.5"}, "tau must be a number"),
        ({"question": "a?", "tau": True}, "tau must be a number"),
        ({"question": "a?", "temperature": float("nan")}, "temperature must be a number"),
        ({"question": "a?", "gamma": float("inf")}, "gamma must be a number"),
        ({"question": "a?", "gamma": 10**400}, "gamma must be a number"),
        ({"question": "a?", "client_id": 5}, "client_id has the wrong type"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_invalid_parameters(params, message):
    with pytest.raises(RequestError, match=message):
        ask_parameters(params)


def test_overlay_format_of_each_viewer():
    assert overlay_parameters({}) == OverlayParameters(".nii.gz", "uint8", True)
    assert overlay_parameters(CLIENT) == OverlayParameters(".nrrd", "uint8", False)
    for wrong in ({"result_extension": "/../x.nii"}, {"result_dtype": "float64"}, {"result_compress": 1}, {"a": 1}):
        with pytest.raises(RequestError):
            overlay_parameters(wrong)


def test_settings():
    given = {"gamma": 0, "tau": 0.5, "temperature": 2.0}
    assert ask_parameters({"question": "a?", **given}).settings == given
    assert overlay_parameters({**CLIENT, "tau": 0.5}).settings == {"tau": 0.5}
    assert report_parameters({"tau": 0.5}) == {"tau": 0.5}


def test_report_has_no_question():
    assert report_parameters(CLIENT) == {}
    with pytest.raises(RequestError, match="1 unknown parameter"):
        report_parameters({"question": "a?"})


def test_params_are_a_json_object():
    assert parse_parameters("") == {}
    assert parse_parameters('{"question": "a?"}') == {"question": "a?"}
    for wrong in ("[1]", "3", "{", "[" * 100_000, '{"a": 1' + "0" * 5000 + "}"):
        with pytest.raises(RequestError):
            parse_parameters(wrong)


@pytest.mark.parametrize("name", ["../a", "..", ".lock", "a/b", "a\\b", "C:a", "a\0b", "a\nb", "", "x" * 256], ids=repr)
def test_names_that_could_be_paths(name):
    with pytest.raises(RequestError):
        check_identifier("image", name)


@pytest.mark.parametrize("name", ["ct 1", "Größe_3-b", "1.2.840.113", "a..b", "x" * 255])
def test_names(name):
    assert check_identifier("image", name) == name
