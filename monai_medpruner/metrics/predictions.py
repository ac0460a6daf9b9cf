# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Predictions as they are scored: read from JSON lines and checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_medpruner.errors import SettingsError

__all__ = ["Prediction", "as_predictions", "read_predictions"]

#: what data sets write for a choice that there is not
_ABSENT = ("", "-", "NA", "nan")


@dataclass(frozen=True)
class Prediction:
    """One answer beside what was asked.

    Args:
        id: unique within a run.
        prediction: what the model wrote; empty where the item failed.
        reference: the right answer or report.
        answer_choice: letter of the right choice, upper case; None for an open question.
        choices: letter -> text of the choices there are.
        type: the question's type; "all" where there are none.
        subtype: the type's part; "" where there are none.
        failed: whether the item ended in an error.
    """

    id: str
    answer: str
    reference: str
    reference_choice: str | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    type: str = "all"
    subtype: str = ""
    failed: bool = False

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> Prediction:
        """Make one of a line's fields.

        Needs ``id`` and ``reference``; reads ``prediction``, ``answer_choice``, ``choices`` (a mapping of letters, or a
        list), ``type``, ``subtype``, and ``status`` ("ok", or an error's name; missing is "ok"). A failed item's
        prediction does not count, whatever it is.

        Raises:
            SettingsError: a field is missing or of the wrong kind.
        """
        if missing := [name for name in ("id", "reference") if line.get(name) is None]:
            raise SettingsError(f"a prediction lacks {' and '.join(missing)}; it has {', '.join(sorted(line))}")
        failed = line.get("status") not in (None, "ok")
        choice = line.get("reference_choice")
        return cls(
            id=str(line["id"]),
            answer="" if failed else str(line.get("answer") or ""),
            reference=str(line["reference"]),
            reference_choice=None if choice is None or str(choice) in _ABSENT else str(choice).strip().upper(),
            choices=_named_choices(line.get("choices")),
            type="all" if line.get("type") in (None, "") else str(line["type"]),
            subtype="" if line.get("subtype") is None else str(line["subtype"]),
            failed=failed,
        )


def _named_choices(choices: Any) -> dict[str, str]:
    if not choices:
        return {}
    if isinstance(choices, (list, tuple)):
        choices = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", choices, strict=False))
    if not isinstance(choices, Mapping):
        raise SettingsError(f"choices are a mapping of letters to texts or a list, got {type(choices).__name__}")
    return {str(k).upper(): str(v) for k, v in choices.items() if v is not None and str(v).strip() not in _ABSENT}


def as_predictions(lines: Iterable[Mapping[str, Any] | Prediction]) -> list[Prediction]:
    """Lines to predictions in the order of their ids, so that the order of writing has no say in any number.

    Raises:
        SettingsError: a line lacks a field, an id comes twice, or there is no line.
    """
    items = [line if isinstance(line, Prediction) else Prediction.from_line(line) for line in lines]
    items.sort(key=lambda item: item.id)
    if not items:
        raise SettingsError("there is no prediction to score")
    if twice := len(items) - len({item.id for item in items}):
        raise SettingsError(f"{twice} prediction(s) have the id of another one; merge shards without overlap")
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
                    raise SettingsError(f"line {number} of {path} is no JSON object")
                lines.append(line)
    except json.JSONDecodeError as error:
        raise SettingsError(f"line {number} of {path} is no JSON (cut off? resume the run first)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read predictions from {path}: {error}") from error
    return lines
