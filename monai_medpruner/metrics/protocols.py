# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Whole evaluations under the names of those who published them: prompts, texts, metrics, aggregation."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics.bleu import BleuScorer
from monai_medpruner.metrics.meteor import MeteorScorer
from monai_medpruner.metrics.rouge import RougeScorer
from monai_medpruner.metrics.text_scorer import TextScorer

__all__ = ["PROTOCOLS", "EvaluationProtocol", "find_protocol"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationProtocol:
    """How one published evaluation asks and scores. What it does not say is this package's default.

    Args:
        name: its name here.
        scorers: its text metrics, for open questions and reports.
        answer_rule: its rule for closed questions.
        closed_prompt: with ``{question}`` and ``{choices}``; None where it has no closed questions.
        open_prompt: with ``{question}``; None where it has no open questions.
        report_prompt: asks for a report; None where it has none.
        absent_choice: what stands for each missing one of A to D in the prompt; None to leave it out.
        type_score: "items" where a type's score is over its items, "subtypes" where it is the unweighted mean over its
            subtypes.
        level: where the protocol's own number stands: "micro" (all items), "macro" (unweighted mean over types) or
            "types" (one number each).
        removed_texts: taken out of predictions before anything else.
        strips: whether texts lose white space at both ends.
        drops_empty: whether empty predictions to open questions are left out of the text metrics (a bug of its source;
            elsewhere they score 0).
    """

    name: str
    scorers: tuple[TextScorer, ...]
    answer_rule: str
    closed_prompt: str | None = None
    open_prompt: str | None = None
    report_prompt: str | None = None
    absent_choice: str | None = None
    type_score: str = "items"
    level: str = "macro"
    removed_texts: tuple[str, ...] = ()
    strips: bool = True
    drops_empty: bool = False

    def prompt(self, question: str, choices: Mapping[str, str] | None = None) -> str:
        """The text to ask, without the image's place.

        Args:
            question: the question; it does not hold the choices.
            choices: letter -> text of the choices there are; None or empty for an open question.

        Raises:
            SettingsError: the protocol has no such question.
        """
        form = self.closed_prompt if choices else self.open_prompt
        if form is None:
            raise SettingsError(f"protocol {self.name!r} has no {'closed' if choices else 'open'} questions")
        return form.format(question=question, choices=self._list_choices(choices or {}))

    def _list_choices(self, choices: Mapping[str, str]) -> str:
        if self.absent_choice is not None:
            choices = dict.fromkeys("ABCD", self.absent_choice) | dict(choices)
        return " ".join(f"{letter}. {text}" for letter, text in sorted(choices.items()))

    def prepare(self, text: str) -> str:
        """A prediction or reference without white space at its ends, where the protocol takes it away."""
        return text.strip() if self.strips else text

    def prepare_prediction(self, text: str) -> str:
        """A prediction as the protocol's metrics see it."""
        for removed in self.removed_texts:
            text = text.replace(removed, "")
        return self.prepare(text)

    def with_wordnet(self, folder: str | Path | None = None) -> EvaluationProtocol:
        """The same protocol with WordNet in its METEOR, where this machine has it.

        Without it METEOR stays, and is called, "meteor-exact-stem", and a warning is logged.

        Args:
            folder: as in :func:`~monai_medpruner.metrics.wordnet.find_wordnet`.

        Raises:
            SettingsError: the folder was given and holds no WordNet.
        """
        # NLTK takes a second to import: listing the protocols must not wait for it
        from monai_medpruner.metrics.wordnet import find_wordnet

        wordnet = find_wordnet(folder)
        if wordnet is None:
            logger.warning("NLTK finds no WordNet: synonyms do not count, and METEOR is reported as meteor-exact-stem")
        scorers = (replace(s, wordnet=wordnet) if isinstance(s, MeteorScorer) else s for s in self.scorers)
        return replace(self, scorers=tuple(scorers))


# "Choices: A. … D. …" after the question is M3D's form; MedUniEval's own test file, which holds them, is not published
_MEDUNI_CLOSED = "{question} Choices: {choices}\nAnswer with the option's letter from the given choices directly."
_MEDUNI_OPEN = "{question}\nPlease answer the question concisely."

#: MedUniEval's ``eval_3d.py``: M3D-VQA (macro) and 3D-RAD (by type)
_MEDUNI_VQA = EvaluationProtocol(
    name="meduni-vqa",
    scorers=(
        BleuScorer(1, lowercase=True, smoothing="method1"),
        BleuScorer(4, lowercase=True, smoothing="method1"),
        RougeScorer("1", "rouge"),
        RougeScorer("l", "rouge"),
        MeteorScorer(),
    ),
    answer_rule="meduni-letter",
    closed_prompt=_MEDUNI_CLOSED,
    open_prompt=_MEDUNI_OPEN,
)

#: MedUniEval's ``cal_report_metrics.py``: AMOS-MM reports
_MEDUNI_REPORT = EvaluationProtocol(
    name="meduni-report",
    scorers=(
        BleuScorer(1, "space_before_dots", lowercase=True),
        BleuScorer(4, "space_before_dots", lowercase=True),
        RougeScorer("1", "rouge", max_characters=2048),
        RougeScorer("l", "rouge", max_characters=2048),
        MeteorScorer("space_before_dots"),
    ),
    answer_rule="meduni-letter",
    closed_prompt=_MEDUNI_CLOSED,
    open_prompt=_MEDUNI_OPEN,
    report_prompt=(
        "You are a helpful assistant. Please generate a report for the given images, including both findings and "
        "impressions. Return the report in the following format: Findings: {} Impression: {}."
    ),
    level="micro",
    removed_texts=("Findings:", "Impression:"),
    strips=False,
)

# Hugging Face's METEOR splits sentences first, with a model that is a download: one-sentence texts score the same. Its
# ROUGE of a set is the median of unseeded bootstrap means; here it is the mean
_HUGGING_FACE_SCORERS = (RougeScorer("1", "rouge_score"), MeteorScorer("word_tokenize"))

#: M3D's ``eval_vqa.py``; a missing choice, "NA" in its table, reaches the prompt as pandas' nan
_M3D_OFFICIAL = EvaluationProtocol(
    name="m3d-official",
    scorers=(BleuScorer(1, "13a"), *_HUGGING_FACE_SCORERS),
    answer_rule="m3d-substring",
    closed_prompt="{question} Choices: {choices}",
    open_prompt="{question}",
    absent_choice="nan",
)

#: 3D-RAD's ``eval_3DRAD.py`` and ``evaluate_result.py``; the latter scores task 4 (existence) as text, though its
#: questions are closed: here they have an accuracy
_RAD3D_OFFICIAL = EvaluationProtocol(
    name="3drad-official",
    scorers=(BleuScorer(1, "13a", corpus=True), *_HUGGING_FACE_SCORERS),
    answer_rule="m3d-substring",
    closed_prompt="{question}\nChoices: {choices}\nAnswer:",
    open_prompt="{question}\nAnswer:",
    absent_choice="-",
    type_score="subtypes",
    level="types",
    drops_empty=True,
)

#: every protocol by its name
PROTOCOLS: dict[str, EvaluationProtocol] = {
    protocol.name: protocol for protocol in (_MEDUNI_VQA, _MEDUNI_REPORT, _M3D_OFFICIAL, _RAD3D_OFFICIAL)
}


def find_protocol(name: str) -> EvaluationProtocol:
    """The protocol of a name.

    Raises:
        SettingsError: there is none.
    """
    if name not in PROTOCOLS:
        raise SettingsError(f"no protocol is named {name!r}; there are: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
