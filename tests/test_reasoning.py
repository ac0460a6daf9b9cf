# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A model's reasoning is left out of what is scored, and kept beside it."""

from __future__ import annotations

import pytest

from monai_medpruner.metrics import parse_choice, score
from monai_medpruner.reasoning import without_reasoning
from monai_medpruner.results import Answer


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("<think>It is A. No, B.</think>B", "B"),
        ("<think>\n\n</think>\n\nA cyst. ", "A cyst."),
        ("It may be A.\n</think>\nB", "B"),
        ("<think>one</think>First. <think>two</think>Second.", "First. Second."),
        ("<think>It never ends, A", ""),
        ("B. <think>Was that right", "B."),
        ("5 < 6 mm", "5 < 6 mm"),
        ("", ""),
    ],
)
def test_reasoning_is_left_out(written, answer):
    assert without_reasoning(written) == answer
    made = Answer.of_text(written, new_tokens=9)
    assert (made.text, made.new_tokens) == (answer, 9)
    assert made.raw_text == (None if answer == written.strip() else written)
    assert ("raw_answer" in made.summary()) == (made.raw_text is not None)


def line(answer, **more):
    return {"id": more.pop("id", "1"), "reference": "A cyst", "answer": answer, **more}


@pytest.mark.parametrize("protocol", ["meduni-vqa", "meduni-report", "m3d-official", "3drad-official"])
def test_scores_are_those_of_the_answer_alone(protocol):
    """Also of lines that other programs wrote, with the raw text as the answer."""
    raw, plain = "<think>A. Is it a stone?</think>A cyst", "A cyst"
    reasoned, answered = (score([line(one)], protocol, resamples=2) for one in (raw, plain))
    assert reasoned["micro"] == answered["micro"]
    closed = {"reference_choice": "B", "choices": {"A": "Yes", "B": "No"}}
    reasoned, answered = (
        score([line(one, **closed)], protocol, resamples=2) for one in ("<think>A. Yes?</think>B. No", "B. No")
    )
    assert reasoned["micro"] == answered["micro"]
    assert reasoned["micro"]["accuracy_meduni-letter"]["value"] == 100


def test_choice_of_an_answer_with_reasoning():
    assert parse_choice("<think>Option A is tempting.</think>Option B", {"A": "Yes", "B": "No"}) == "B"
    assert parse_choice("<think>It is B because", {"A": "Yes", "B": "No"}) is None


def test_truncated_answers_are_counted():
    lines = [line("A cyst", id=str(n), truncated=n < 2) for n in range(3)] + [line("A cyst", id="old")]
    assert score(lines, "meduni-vqa", resamples=2)["truncated"] == 2
