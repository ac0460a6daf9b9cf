# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Which items a run answered right, and where their pages are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from monai_medpruner.metrics import Prediction, answer_is_correct, read_predictions
from monai_medpruner.report.html import Html, element

__all__ = ["JudgedItem", "item_title", "judged_items", "page_link"]


@dataclass(frozen=True)
class JudgedItem:
    """A closed question with an answer.

    Args:
        prediction: the answer as it is scored.
        question: its text.
        correct: by the headline rule; a failed item is wrong.
        page: of the study, where it was written; it may be missing.
    """

    prediction: Prediction
    question: str
    correct: bool
    page: Path | None


def judged_items(predictions: str | Path) -> dict[str, JudgedItem]:
    """Read the closed questions of a run, by id.

    Args:
        predictions: path of the JSON lines. Pages lie in ``reports/`` beside it.

    Raises:
        SettingsError: the file cannot be read, or a line lacks a field.
    """
    folder = Path(predictions).parent / "reports"
    judged = {}
    for line in read_predictions(predictions):
        item = Prediction.from_line(line)
        if item.reference_choice is not None:
            correct = answer_is_correct(item.answer, item.reference_choice, item.choices)
            judged[item.id] = JudgedItem(item, str(line.get("question") or ""), correct, _page(line, folder))
    return judged


def item_title(item: JudgedItem) -> Html:
    """Return the question, and its id below it."""
    return Html(element("bdi", item.question) + element("p", element("bdi", item.prediction.id), class_="sub"))


def page_link(item: JudgedItem, name: object, start: Path) -> Html:
    """Return a name that leads to the page of an item's study; the name alone where no page was written.

    Args:
        item: the item.
        name: what is shown.
        start: folder of the page that has the link.
    """
    if item.page is None or not item.page.is_file():
        return element("span", name)
    way = os.path.relpath(item.page.resolve(), start.resolve()).replace(os.sep, "/")
    return element("a", name, href=quote(way))


def _page(line: Mapping[str, Any], folder: Path) -> Path | None:
    name = line.get("record")
    # a name, and no way to another folder: the lines may come from anywhere
    return folder / f"{name}.html" if isinstance(name, str) and name == Path(name).name else None
