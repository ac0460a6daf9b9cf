# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The bundles' settings and folders; imports nothing heavy, so that the help of commands answers at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from monai_medpruner.errors import SettingsError

__all__ = [
    "DEFAULT_BUNDLE",
    "EVALUATION",
    "NONE",
    "Setting",
    "bundle_config",
    "bundle_folders",
    "preset",
    "preset_names",
    "pruner_fields",
    "setting_overrides",
    "settings",
]

DEFAULT_BUNDLE = "medpruner_qwen3vl"
#: group of the settings that an evaluation has besides those of an answer
EVALUATION = "evaluation"
#: what users write for null; it exists in texts only
NONE = "none"
_PRESET = "preset_"
# a field of the chosen pruner, as MONAI's command line names it
_FIELD = "token_pruner::"
# arguments of select_pruner that are no fields
_CHOICE = (f"{_FIELD}name", f"{_FIELD}pruners")
_PACKAGE = Path(__file__).resolve().parent
_TYPES = {"number": "a number", "integer": "a whole number", "boolean": "true or false", "list": "text or a JSON list"}


@dataclass(frozen=True)
class Setting:
    """A setting of the bundles.

    Args:
        name: as configurations and options have it.
        default: of bundles that state no other value; text that begins with $ is an expression of a configuration.
        help: what it does.
        group: "input", "slices", "budget", "tokens", "model", "output" or "evaluation".
        type: "text", "number", "integer", "boolean", or "list" (text, or a JSON list).
        none: whether the text ``none`` stands for null.
        under_budget: default where a budget of tokens is given; None where that changes nothing.
    """

    name: str
    default: Any
    help: str
    group: str
    type: str = "text"
    none: bool = False
    under_budget: Any = None

    def read(self, text: str) -> Any:
        """Return the value that a text stands for.

        Raises:
            SettingsError: it has another type, or a configuration would execute or replace it.
        """
        if self.none and text == NONE:
            # pruners are chosen by name, this one among them
            return NONE if self.name == "pruner" else None
        if self.type == "text" or (self.type == "list" and not text.startswith("[")):
            return _plain_text(self.name, text)
        try:
            value = _READERS[self.type](text)
        except ValueError as error:
            kind = _TYPES[self.type] + (f" or {NONE}" if self.none else "")
            raise SettingsError(f"--{self.name} must be {kind}, got {text!r}") from error
        return value


@cache
def settings() -> Mapping[str, Setting]:
    """Return the settings that all bundles have, by name, in the order of ``configs/settings.json``."""
    described = json.loads((_PACKAGE / "configs" / "settings.json").read_text(encoding="utf-8"))
    return {name: Setting(name, **one) for name, one in described.items()}


def bundle_folders() -> dict[str, Path]:
    """Return the folders of the bundles by name: those of the installed package, else those of the checkout.

    Raises:
        SettingsError: there are none.
    """
    for folder in (_PACKAGE / "bundle_files", _PACKAGE.parent / "bundles"):
        if found := {path.parent.parent.name: path.parent.parent for path in folder.glob("*/configs/inference.json")}:
            return found
    raise SettingsError(f"no bundles were found in {_PACKAGE} or beside it; install the package again")


def bundle_config(folder: Path) -> dict[str, Any]:
    """Return a bundle's ``inference.json`` as it is written."""
    return json.loads((folder / "configs" / "inference.json").read_text(encoding="utf-8"))


def pruner_fields() -> dict[str, list[str]]:
    """Return the fields of the pruners that the bundles list, by the pruner's name."""
    blocks = bundle_config(bundle_folders()[DEFAULT_BUNDLE])["pruners"]
    return {name: [field for field in block if field != "_target_"] for name, block in blocks.items() if block}


def setting_overrides(folder: Path, given: Mapping[str, str | None]) -> dict[str, Any]:
    """Read settings that a user gave as text.

    Args:
        folder: of the bundle that they are for.
        given: name -> text; None where a setting was not given. Names are those of :func:`settings` (``preset`` stands
            for the values of its file, over which others win), of the bundle's own settings, ``model`` (stands for
            ``model_id`` without the bundle's revision), and ``token_pruner::FIELD`` for a field of the chosen pruner.

    Returns:
        Overrides of the bundle's configuration: id -> value.

    Raises:
        SettingsError: a name is unknown, a text has another type than its setting, or a configuration would execute or
            replace it.
    """
    own = bundle_config(folder)
    texts = {name: text for name, text in given.items() if text is not None}
    overrides: dict[str, Any] = preset(folder, texts.pop("preset")) if "preset" in texts else {}
    if "model" in texts:
        overrides |= {"model_id": _plain_text("model", texts.pop("model")), "revision": None}
    for name, text in texts.items():
        if name in settings():
            overrides[name] = settings()[name].read(text)
        elif re.fullmatch(rf"{_FIELD}[A-Za-z]\w*", name) and name not in _CHOICE:
            overrides[name] = _field_value(name, text)
        elif isinstance(own.get(name), (str, int, float)) and not str(own[name]).startswith("$"):
            overrides[name] = _plain_text(name, text)
        else:
            raise SettingsError(_unknown(name, own))
    return overrides


def preset_names(folder: Path) -> list[str]:
    """Return the names of a bundle's presets."""
    return sorted(path.stem.removeprefix(_PRESET) for path in (folder / "configs").glob(f"{_PRESET}*.json"))


def preset(folder: Path, name: str) -> dict[str, Any]:
    """Return the settings that a name stands for, ``configs/preset_<name>.json`` of a bundle: id -> value.

    Raises:
        SettingsError: the bundle has no such preset.
    """
    if name not in (names := preset_names(folder)):
        raise SettingsError(f"there is no preset {name!r} in {folder.name}; there are: {', '.join(names)}")
    return json.loads((folder / "configs" / f"{_PRESET}{name}.json").read_text(encoding="utf-8"))


def _unknown(name: str, own: Mapping[str, Any]) -> str:
    known = {*settings(), *(f"{_FIELD}{field}" for block in own["pruners"].values() for field in block or ())}
    known.remove(f"{_FIELD}_target_")
    near = [f"{_FIELD}{name}"] if f"{_FIELD}{name}" in known else get_close_matches(name, known, n=3)
    meant = f"; did you mean {', '.join(f'--{one}' for one in near)}?" if near else ""
    return f"there is no setting --{name}{meant}"


def _plain_text(name: str, text: str) -> str:
    """Return a text; refuse what a bundle's configuration would execute or replace."""
    if text.startswith(("$", "@", "%")) or "#" in text:
        raise SettingsError(f"--{name} must not begin with $, @ or %, nor hold #: a bundle would execute or replace it")
    return text


def _field_value(name: str, text: str) -> Any:
    """The value of a pruner's field: a number, a truth value, null, or text."""
    if text == NONE:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return _plain_text(name, text)
    return _plain_text(name, text) if isinstance(value, (str, dict, list)) else value


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _numbers(text: str) -> Any:
    """A JSON list of numbers or of lists of numbers."""
    value = json.loads(text)
    leaves = [leaf for one in value for leaf in (one if isinstance(one, list) else [one])]
    if any(isinstance(leaf, bool) or not isinstance(leaf, (int, float)) for leaf in leaves):
        raise ValueError(text)
    return value


_READERS: dict[str, Any] = {"number": float, "integer": int, "boolean": _truth, "list": _numbers}
