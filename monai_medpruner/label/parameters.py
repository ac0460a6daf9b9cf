# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Validation of request parameters.

No value of a request is passed to a bundle's configuration, which would execute it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from monai_medpruner.data.image_list import MAX_QUESTION_CHARACTERS
from monai_medpruner.errors import RequestError

__all__ = [
    "ADJUSTABLE",
    "AskParameters",
    "OverlayParameters",
    "ask_parameters",
    "check_identifier",
    "overlay_parameters",
    "parse_parameters",
    "report_parameters",
]

#: settings that a request may override for itself; all are numbers
ADJUSTABLE = ("gamma", "tau", "temperature")
#: max number of turns of a conversation, because each turn takes up model context
MAX_TURNS = 32
#: usual limit of file systems
MAX_IDENTIFIER_CHARACTERS = 255
# parameters that MONAI Label's clients send with every request; restore_label_idx is ignored
_CLIENT_PARAMETERS: dict[str, tuple[type, ...]] = {
    "client_id": (str, type(None)),
    "result_extension": (str,),
    "result_dtype": (str,),
    "result_compress": (bool,),
    "restore_label_idx": (bool,),
}
_EXTENSIONS = (".nii.gz", ".nii", ".nrrd")
# far above any sensible value, and safe to convert to float
_MAX_NUMBER = 1e9
_DTYPES = ("uint8", "uint16")


@dataclass(frozen=True)
class AskParameters:
    """A question and the conversation so far.

    Args:
        question: text of 1 to 20,000 characters.
        history: earlier questions with their answers, oldest first.
        settings: the given settings of :data:`ADJUSTABLE`.
    """

    question: str
    history: tuple[tuple[str, str], ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OverlayParameters:
    """The format of a label map, as requested by the viewers.

    Args:
        extension: ".nii.gz", ".nii" or ".nrrd" (3D Slicer and OHIF).
        dtype: "uint8" or "uint16".
        compress: whether an ".nrrd" file is compressed.
        settings: the given settings of :data:`ADJUSTABLE`.
    """

    extension: str = ".nii.gz"
    dtype: str = "uint8"
    compress: bool = True
    settings: Mapping[str, float] = field(default_factory=dict)


def parse_parameters(text: str) -> dict[str, Any]:
    """Read the form field ``params``.

    Raises:
        RequestError: the text is not a JSON object.
    """
    try:
        params = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise RequestError("params must be a JSON object; found invalid JSON") from error
    if not isinstance(params, dict):
        raise RequestError(f"params must be a JSON object, got {type(params).__name__}")
    return params


def ask_parameters(params: Mapping[str, Any]) -> AskParameters:
    """Check the parameters of ``ask``: ``question``, and optionally ``history``, a list of ``{question, answer}``.

    Raises:
        RequestError: a parameter is missing, unknown, too long, or has the wrong type.
    """
    _check_names(params, ("question", "history"))
    question = _text("question", params.get("question"))
    turns = params.get("history", [])
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise RequestError('history must be a list of {"question": "...", "answer": "..."}')
    if len(turns) > MAX_TURNS:
        raise RequestError(f"history has {len(turns)} turns; the maximum is {MAX_TURNS}")
    history = []
    for number, turn in enumerate(turns):
        if set(turn) != {"question", "answer"}:
            raise RequestError(f"history, turn {number}: expected exactly the keys question and answer")
        history.append(tuple(_text(f"history, turn {number}: {name}", turn[name]) for name in ("question", "answer")))
    return AskParameters(question, tuple(history), _settings(params))  # type: ignore[arg-type]


def report_parameters(params: Mapping[str, Any]) -> dict[str, float]:
    """Check the parameters of ``report``, which has only settings, and return the settings.

    Raises:
        RequestError: a parameter is unknown or has the wrong type.
    """
    _check_names(params, ())
    return _settings(params)


def overlay_parameters(params: Mapping[str, Any]) -> OverlayParameters:
    """Check the parameters of ``pruning_overlay``: the file format that a MONAI Label client requests, and settings.

    Raises:
        RequestError: a parameter is unknown, or has the wrong type or an unknown value.
    """
    _check_names(params, ())
    overlay = OverlayParameters(
        params.get("result_extension", OverlayParameters.extension),
        params.get("result_dtype", OverlayParameters.dtype),
        params.get("result_compress", OverlayParameters.compress),
        _settings(params),
    )
    for name, value, known in (
        ("result_extension", overlay.extension, _EXTENSIONS),
        ("result_dtype", overlay.dtype, _DTYPES),
    ):
        if value not in known:
            raise RequestError(f"{name} must be one of {', '.join(known)}")
    return overlay


def check_identifier(name: str, value: str) -> str:
    """Return an identifier of an image, label or session from a client, unless it could be a path.

    Raises:
        RequestError: it is empty or too long, starts with a dot, or contains a path character.
    """
    if not value or len(value) > MAX_IDENTIFIER_CHARACTERS:
        raise RequestError(f"{name} must have 1 to {MAX_IDENTIFIER_CHARACTERS} characters")
    if value.startswith(".") or any(character in "/\\:" or ord(character) < 32 for character in value):
        raise RequestError(f"{name} must be a name, not a path")
    return value


def _check_names(params: Mapping[str, Any], own: tuple[str, ...]) -> None:
    """Raise on unknown parameters, and on client parameters of the wrong type."""
    unknown = set(params) - {*own, *ADJUSTABLE, *_CLIENT_PARAMETERS}
    if unknown:
        known = ", ".join((*own, *ADJUSTABLE))
        raise RequestError(f"{len(unknown)} unknown parameter(s); this task accepts {known}")
    for name, kinds in _CLIENT_PARAMETERS.items():
        if name in params and not isinstance(params[name], kinds):
            raise RequestError(f"{name} has the wrong type, {type(params[name]).__name__}")


def _settings(params: Mapping[str, Any]) -> dict[str, float]:
    """Return the settings that a request overrides; their ranges are checked where they are used."""
    given = {name: params[name] for name in ADJUSTABLE if name in params}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _MAX_NUMBER:
            raise RequestError(f"{name} must be a number")
    return {name: float(value) for name, value in given.items()}


def _text(name: str, value: Any) -> str:
    """Return a valid text, or raise."""
    if not isinstance(value, str):
        raise RequestError(f"{name} must be text, got {'nothing' if value is None else type(value).__name__}")
    for problem, applies in _TEXT_RULES.items():
        if applies(value):
            raise RequestError(f"{name} {problem}")
    return value


_TEXT_RULES: dict[str, Callable[[str], bool]] = {
    "is empty": lambda text: not text.strip(),
    f"has more than {MAX_QUESTION_CHARACTERS} characters": lambda text: len(text) > MAX_QUESTION_CHARACTERS,
    "contains half a character (a lone surrogate)": lambda text: any("\ud800" <= one <= "\udfff" for one in text),
}
