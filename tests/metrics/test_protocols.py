# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Exact prompts of the protocols, and their text preparation."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics import PROTOCOLS, find_protocol

QUESTION = "Which {organ} is shown?"
FOUR = {"A": "Spleen", "B": "Liver", "C": "Heart", "D": "Both lungs"}
TWO = {"A": "Yes", "B": "No"}


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        (
            "meduni-vqa",
            FOUR,
            "Which {organ} is shown? Choices: A. Spleen B. Liver C. Heart D. Both lungs\n"
            "Answer with the option's letter from the given choices directly.",
        ),
        (
            "meduni-vqa",
            TWO,
            "Which {organ} is shown? Choices: A. Yes B. No\n"
            "Answer with the option's letter from the given choices directly.",
        ),
        ("meduni-vqa", None, "Which {organ} is shown?\nPlease answer the question concisely."),
        ("m3d-official", FOUR, "Which {organ} is shown? Choices: A. Spleen B. Liver C. Heart D. Both lungs"),
        ("m3d-official", TWO, "Which {organ} is shown? Choices: A. Yes B. No C. nan D. nan"),
        ("m3d-official", {}, "Which {organ} is shown?"),
        ("3drad-official", TWO, "Which {organ} is shown?\nChoices: A. Yes B. No C. - D. -\nAnswer:"),
        ("3drad-official", None, "Which {organ} is shown?\nAnswer:"),
    ],
)
def test_prompts(name, choices, expected):
    assert find_protocol(name).prompt(QUESTION, choices) == expected


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("meduni-vqa", "\nAnswer with the option's letter from the given choices directly."),
        ("meduni-report", "\nAnswer with the option's letter from the given choices directly."),
        ("m3d-official", ""),
        ("3drad-official", "\nAnswer:"),
    ],
)
def test_closed_questions_that_list_their_choices_or_have_none(name, suffix):
    """The instruction is appended, and never twice."""
    plan = find_protocol(name)
    for question in ("Is it?\nA.Yes\nB.No", "Is it?"):
        asked = plan.prompt(question, None, closed=True)
        assert asked == question + suffix
        assert plan.prompt(asked, None, closed=True) == asked
        assert plan.prompt(question, None, closed=False) == plan.prompt(question)
    with pytest.raises(SettingsError, match="has no closed questions"):
        replace(plan, closed_prompt=None).prompt("Is it?", closed=True)


def test_choices_are_sorted_by_letter():
    assert "A. Yes B. No" in find_protocol("meduni-vqa").prompt(QUESTION, {"B": "No", "A": "Yes"})


def test_report_prompt():
    assert find_protocol("meduni-report").report_prompt == (
        "You are a helpful assistant. Please generate a report for the given images, including both findings and "
        "impressions. Return the report in the following format: Findings: {} Impression: {}."
    )
    assert [name for name, plan in PROTOCOLS.items() if plan.report_prompt] == ["meduni-report"]


def test_texts():
    report, vqa = find_protocol("meduni-report"), find_protocol("meduni-vqa")
    assert report.prepare_prediction("Findings: a. Impression: b.") == " a.  b."
    assert report.prepare("Findings: a") == "Findings: a"
    assert vqa.prepare_prediction(" Findings: a ") == "Findings: a"


def test_definitions():
    """The scorers of each protocol on one pair of texts."""

    def scores(name, prediction, reference):
        plan = find_protocol(name)
        texts = plan.prepare_prediction(prediction), plan.prepare(reference)
        return {scorer.name: round(scorer.score(*texts), 3) for scorer in plan.scorers}

    pair = "right Hilar region", "Right hilar region."
    assert scores("meduni-vqa", *pair) == {
        "bleu-1": 0.667,
        "bleu-4": 0.24,
        "rouge-1": 1.0,
        "rouge-l": 1.0,
        "meteor-exact-stem": 0.625,
    }
    assert scores("meduni-report", *pair) == {
        "bleu-1": 0.717,
        "bleu-4": 0.0,
        "rouge-1": 1.0,
        "rouge-l": 1.0,
        "meteor-exact-stem": 0.755,
    }
    # case-sensitive: one of three tokens matches, out of four in the reference
    assert scores("m3d-official", *pair)["bleu-1"] == 0.239
    assert scores("3drad-official", *pair) == scores("m3d-official", *pair)
    assert scores("m3d-official", *pair)["rouge-1"] == 1.0
    long = "a " * 1024 + "cyst"
    assert scores("meduni-report", long, "cyst")["rouge-1"] == 0
    assert scores("meduni-vqa", long, "cyst")["rouge-1"] > 0


def test_source_quirks_stay_in_their_protocol():
    assert [name for name, plan in PROTOCOLS.items() if plan.drops_empty] == ["3drad-official"]
    assert [name for name, plan in PROTOCOLS.items() if plan.type_score == "subtypes"] == ["3drad-official"]
    assert [name for name, plan in PROTOCOLS.items() if any(s.of_corpus for s in plan.scorers)] == ["3drad-official"]
    assert {name: plan.answer_rule for name, plan in PROTOCOLS.items()} == {
        "meduni-vqa": "meduni-letter",
        "meduni-report": "meduni-letter",
        "m3d-official": "m3d-substring",
        "3drad-official": "m3d-substring",
    }


def test_unknown_name():
    with pytest.raises(SettingsError, match="3drad-official"):
        find_protocol("rad3d")


def test_protocols_are_listed_without_heavy_imports():
    """The command line's help lists the protocols, and should not wait for torch."""
    code = (
        "import sys; from monai_medpruner.metrics.protocols import PROTOCOLS; print(*PROTOCOLS); "
        "print(*{'torch', 'monai', 'nltk', 'numpy'}.intersection(sys.modules))"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert listed.splitlines() == [" ".join(PROTOCOLS), ""]
