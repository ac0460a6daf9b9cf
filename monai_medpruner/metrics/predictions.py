# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Predictions to be scored: read from JSON lines and validated."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_medpruner.errors import SettingsError
from monai_medpruner.reasoning import REASONING_MARKS, without_reasoning

__all__ = ["Prediction", "as_predictions", "read_predictions"]

#: texts that data sets use for an absent choice
_ABSENT = ("", "-", "NA", "nan")


@dataclass(frozen=True)
class Prediction:
    """The model's answer to one item, with the reference.

    Args:
        id: unique within a run.
        answer: the model's text; empty if the item failed.
        reference: the reference answer or report.
        reference_choice: letter of the correct choice, upper case; None for an open question.
        choices: letter -> text of the available choices.
        type: type of the question; "all" if the data set has no types.
        subtype: subtype of the question; "" if the data set has no subtypes.
        failed: whether the item ended with an error.
        truncated: whether the answer was cut off at its length limit.
    """

    id: str
    answer: str
    reference: str
    reference_choice: str | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    type: str = "all"
    subtype: str = ""
    failed: bool = False
    truncated: bool = False

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> Prediction:
        """Build a prediction from the fields of a JSON line.

        ``id`` and ``reference`` are required. ``answer``, ``reference_choice``, ``choices`` (a mapping of letters, or a
        list), ``type``, ``subtype``, ``status`` ("ok", the default, or the name of an error) and ``truncated`` are
        optional. The answer of a failed item is ignored, and so is a model's reasoning
        (:func:`~monai_medpruner.reasoning.without_reasoning`).

        Raises:
            SettingsError: a field is missing or has the wrong type.
        """
        if missing := [name for name in ("id", "reference") if line.get(name) is None]:
            raise SettingsError(
                f"a prediction has no {' and no '.join(missing)}; its fields are {', '.join(sorted(line))}"
            )
        failed = line.get("status") not in (None, "ok")
        choice = line.get("reference_choice")
        return cls(
            id=str(line["id"]),
            answer="" if failed else _answer(str(line.get("answer") or "")),
            reference=str(line["reference"]),
            reference_choice=None if choice is None or str(choice) in _ABSENT else str(choice).strip().upper(),
            choices=_named_choices(line.get("choices")),
            type="all" if line.get("type") in (None, "") else str(line["type"]),
            subtype="" if line.get("subtype") is None else str(line["subtype"]),
            failed=failed,
            truncated=bool(line.get("truncated", False)),
        )


def _answer(text: str) -> str:
    """The text without reasoning; any other text is left as it is, since some protocols score its white space."""
    return without_reasoning(text) if any(mark in text for mark in REASONING_MARKS) else text


def _named_choices(choices: Any) -> dict[str, str]:
    if not choices:
        return {}
    if isinstance(choices, (list, tuple)):
        choices = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", choices, strict=False))
    if not isinstance(choices, Mapping):
        raise SettingsError(f"choices must be a list or a mapping of letters to texts, got {type(choices).__name__}")
    return {str(k).upper(): str(v) for k, v in choices.items() if v is not None and str(v).strip() not in _ABSENT}


def as_predictions(lines: Iterable[Mapping[str, Any] | Prediction]) -> list[Prediction]:
    """Convert lines to predictions, sorted by id so that results do not depend on the order of the lines.

    Raises:
        SettingsError: a line lacks a field, an id occurs twice, or there are no lines.
    """
    items = [line if isinstance(line, Prediction) else Prediction.from_line(line) for line in lines]
    items.sort(key=lambda item: item.id)
    if not items:
        raise SettingsError("there are no predictions to score")
    if twice := len(items) - len({item.id for item in items}):
        raise SettingsError(f"{twice} prediction(s) repeat the id of another one; merge shards without overlap")
    return items


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines.

    Raises:
        SettingsError: the file cannot be read, or a line is not a JSON object.
    """
    lines = []
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if not text.strip():
                    continue
                line = json.loads(text)
                if not isinstance(line, dict):
                    raise SettingsError(f"line {number} of {path} is not a JSON object")
                lines.append(line)
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"line {number} of {path} is not JSON; if the run was interrupted, resume it first"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read predictions from {path}: {error}") from error
    return lines
