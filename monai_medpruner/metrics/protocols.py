# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Published evaluation protocols: prompts, text preparation, metrics and aggregation.

:data:`PROTOCOLS` is the one registry; everything that lists or looks up protocols reads it. To add a protocol, add an
:class:`EvaluationProtocol` to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics.bleu import BleuScorer
from monai_medpruner.metrics.meteor import MeteorScorer
from monai_medpruner.metrics.rouge import RougeScorer
from monai_medpruner.metrics.text_scorer import TextScorer
from monai_medpruner.terminal_text import package_logger

__all__ = ["PROTOCOLS", "EvaluationProtocol", "find_protocol"]

logger = package_logger(__name__)


@dataclass(frozen=True)
class EvaluationProtocol:
    """Prompts and scoring of one published evaluation; what the source does not define is this package's default.

    Args:
        name: name of the protocol.
        scorers: text metrics for open questions and reports.
        answer_rule: rule for closed questions, a key of
            :data:`~monai_medpruner.metrics.answer_rules.ANSWER_RULES`.
        closed_prompt: template with ``{question}`` and ``{choices}``; None if the protocol has no closed questions.
        closed_suffix: text after it, and after a closed question whose choices are not listed by the template.
        open_prompt: template with ``{question}``; None if the protocol has no open questions.
        report_prompt: prompt that asks for a report; None if the protocol has no reports.
        absent_choice: text shown for each absent choice from A to D; None to omit absent choices.
        type_score: "items" if the score of a type is computed over its items, "subtypes" if it is the unweighted mean
            over its subtypes.
        level: level at which the source reports: "micro" (all items), "macro" (unweighted mean over types) or
            "types" (one number per type).
        removed_texts: texts removed from predictions first.
        strips: whether texts are stripped of surrounding white space.
        drops_empty: whether empty predictions to open questions are excluded from the text metrics (a bug of the
            source; otherwise they score 0).
    """

    name: str
    scorers: tuple[TextScorer, ...]
    answer_rule: str
    closed_prompt: str | None = None
    closed_suffix: str = ""
    open_prompt: str | None = None
    report_prompt: str | None = None
    absent_choice: str | None = None
    type_score: str = "items"
    level: str = "macro"
    removed_texts: tuple[str, ...] = ()
    strips: bool = True
    drops_empty: bool = False

    def prompt(self, question: str, choices: Mapping[str, str] | None = None, closed: bool | None = None) -> str:
        """Return the prompt for a question, without image placeholders.

        Args:
            question: the question.
            choices: letter -> text of the available choices; None or empty if there are none, or if the question lists
                them itself.
            closed: whether the question is closed; None: if there are choices.

        Raises:
            SettingsError: the protocol has no questions of this kind.
        """
        closed = bool(choices) if closed is None else closed
        form = self.closed_prompt if closed else self.open_prompt
        if form is None:
            raise SettingsError(f"protocol {self.name!r} has no {'closed' if closed else 'open'} questions")
        if not closed:
            return form.format(question=question)
        if choices:
            return form.format(question=question, choices=self._list_choices(choices)) + self.closed_suffix
        instruction = self.closed_suffix.strip()
        told = bool(instruction) and question.rstrip().endswith(instruction)  # by the file
        return question if told else question + self.closed_suffix

    def _list_choices(self, choices: Mapping[str, str]) -> str:
        if self.absent_choice is not None:
            choices = dict.fromkeys("ABCD", self.absent_choice) | dict(choices)
        return " ".join(f"{letter}. {text}" for letter, text in sorted(choices.items()))

    def prepare(self, text: str) -> str:
        """Strip a prediction or reference if the protocol does."""
        return text.strip() if self.strips else text

    def prepare_prediction(self, text: str) -> str:
        """Return a prediction as the metrics of the protocol receive it."""
        for removed in self.removed_texts:
            text = text.replace(removed, "")
        return self.prepare(text)

    def with_wordnet(self, folder: str | Path | None = None) -> EvaluationProtocol:
        """Return this protocol with METEOR using WordNet, if it is available.

        Without WordNet, METEOR is reported as "meteor-exact-stem", and a warning is logged.

        Args:
            folder: as in :func:`~monai_medpruner.metrics.wordnet.find_wordnet`.

        Raises:
            SettingsError: a folder is given and does not contain WordNet.
        """
        # imported here because NLTK takes a second, which listing the protocols should not cost
        from monai_medpruner.metrics.wordnet import find_wordnet

        wordnet = find_wordnet(folder)
        if wordnet is None:
            logger.warning("WordNet was not found: METEOR ignores synonyms and is reported as meteor-exact-stem")
        scorers = (replace(s, wordnet=wordnet) if isinstance(s, MeteorScorer) else s for s in self.scorers)
        return replace(self, scorers=tuple(scorers))


# Choices of a table are listed after the question as M3D does it. MedUniEval's own test files ("Hulu Eval Dataset" of
# ModelScope) hold them in the question, as "\nA.Yes\nB.No"; mode "official" asks such a question as it stands there
_MEDUNI_CLOSED = "{question} Choices: {choices}"
_MEDUNI_SUFFIX = "\nAnswer with the option's letter from the given choices directly."
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
    closed_suffix=_MEDUNI_SUFFIX,
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
    closed_suffix=_MEDUNI_SUFFIX,
    open_prompt=_MEDUNI_OPEN,
    report_prompt=(
        "You are a helpful assistant. Please generate a report for the given images, including both findings and "
        "impressions. Return the report in the following format: Findings: {} Impression: {}."
    ),
    level="micro",
    removed_texts=("Findings:", "Impression:"),
    strips=False,
)

# Hugging Face's METEOR first splits sentences with a model that must be downloaded; one-sentence texts score the same.
# Its ROUGE over a set is the median of unseeded bootstrap means; here it is the mean
_HUGGING_FACE_SCORERS = (RougeScorer("1", "rouge_score"), MeteorScorer("word_tokenize"))

#: M3D's ``eval_vqa.py``; an absent choice, "NA" in its table, appears in the prompt as pandas' nan
_M3D_OFFICIAL = EvaluationProtocol(
    name="m3d-official",
    scorers=(BleuScorer(1, "13a"), *_HUGGING_FACE_SCORERS),
    answer_rule="m3d-substring",
    closed_prompt="{question} Choices: {choices}",
    open_prompt="{question}",
    absent_choice="nan",
)

#: 3D-RAD's ``eval_3DRAD.py`` and ``evaluate_result.py``; the latter scores task 4 (existence) as text although
#: its questions are closed; here they are scored by accuracy
_RAD3D_OFFICIAL = EvaluationProtocol(
    name="3drad-official",
    scorers=(BleuScorer(1, "13a", corpus=True), *_HUGGING_FACE_SCORERS),
    answer_rule="m3d-substring",
    closed_prompt="{question}\nChoices: {choices}",
    closed_suffix="\nAnswer:",
    open_prompt="{question}\nAnswer:",
    absent_choice="-",
    type_score="subtypes",
    level="types",
    drops_empty=True,
)

#: protocols by name
PROTOCOLS: dict[str, EvaluationProtocol] = {
    protocol.name: protocol for protocol in (_MEDUNI_VQA, _MEDUNI_REPORT, _M3D_OFFICIAL, _RAD3D_OFFICIAL)
}


def find_protocol(name: str) -> EvaluationProtocol:
    """Return the protocol with the given name, a key of :data:`PROTOCOLS`.

    Raises:
        SettingsError: the name is unknown.
    """
    if name not in PROTOCOLS:
        raise SettingsError(f"unknown protocol {name!r}; expected one of: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
