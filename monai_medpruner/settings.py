# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The settings and folders of the bundles. Imports no large package, so that the help of commands starts fast."""

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
#: group of the settings that only an evaluation has
EVALUATION = "evaluation"
#: how users write null on a command line
NONE = "none"
_PRESET = "preset_"
# prefix of the chosen pruner's fields on MONAI's command line
_FIELD = "token_pruner::"
# arguments of select_pruner that are not fields
_CHOICE = (f"{_FIELD}name", f"{_FIELD}pruners")
_PACKAGE = Path(__file__).resolve().parent
_TYPES = {"number": "a number", "integer": "a whole number", "boolean": "true or false", "list": "text or a JSON list"}


@dataclass(frozen=True)
class Setting:
    """A setting of the bundles.

    Args:
        name: name in configurations and on command lines.
        default: value in bundles that set no other; a text that begins with $ is an expression of a configuration.
        help: description of the setting.
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
        """Convert a text to a value of the setting's type.

        Raises:
            SettingsError: the text has another type, or a configuration would execute or replace it.
        """
        if self.none and text == NONE:
            # pruners are chosen by name, and "none" is one of the names
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
    """Return the settings that all bundles share, by name, in the order of ``configs/settings.json``."""
    described = json.loads((_PACKAGE / "configs" / "settings.json").read_text(encoding="utf-8"))
    return {name: Setting(name, **one) for name, one in described.items()}


def bundle_folders() -> dict[str, Path]:
    """Return the folders of the bundles by name, from the installed package or else from the repository.

    Raises:
        SettingsError: no bundle was found.
    """
    for folder in (_PACKAGE / "bundle_files", _PACKAGE.parent / "bundles"):
        if found := {path.parent.parent.name: path.parent.parent for path in folder.glob("*/configs/inference.json")}:
            return found
    raise SettingsError(f"no bundles were found in {_PACKAGE} or next to it; install the package again")


def bundle_config(folder: Path) -> dict[str, Any]:
    """Return the content of a bundle's ``inference.json``, unresolved."""
    return json.loads((folder / "configs" / "inference.json").read_text(encoding="utf-8"))


def pruner_fields() -> dict[str, list[str]]:
    """Return the names of the fields of each pruner in the bundles, by the pruner's name."""
    blocks = bundle_config(bundle_folders()[DEFAULT_BUNDLE])["pruners"]
    return {name: [field for field in block if field != "_target_"] for name, block in blocks.items() if block}


def setting_overrides(folder: Path, given: Mapping[str, str | None]) -> dict[str, Any]:
    """Convert the texts of settings to overrides of a bundle's configuration.

    Args:
        folder: folder of the bundle.
        given: name -> text; None if a setting was not given. Names are those of :func:`settings` (``preset`` stands for
            the values of its file, which other settings override), those of the bundle's own settings, ``model``
            (``model_id`` without the bundle's revision), and ``token_pruner::FIELD`` for a field of the chosen pruner.

    Returns:
        Configuration id -> value.

    Raises:
        SettingsError: a name is unknown, a text does not have the type of its setting, or a configuration would execute
            or replace it.
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
    """Return a text unless a bundle's configuration would execute or replace it."""
    if text.startswith(("$", "@", "%")) or "#" in text:
        raise SettingsError(
            f"--{name} must not begin with $, @ or % and must not contain #, because a bundle would execute or replace "
            f"the text, got {text!r}"
        )
    return text


def _field_value(name: str, text: str) -> Any:
    """Return the value of a pruner's field: a number, a boolean, None, or text."""
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
    """Parse a JSON list of numbers or of lists of numbers."""
    value = json.loads(text)
    leaves = [leaf for one in value for leaf in (one if isinstance(one, list) else [one])]
    if any(isinstance(leaf, bool) or not isinstance(leaf, (int, float)) for leaf in leaves):
        raise ValueError(text)
    return value


_READERS: dict[str, Any] = {"number": float, "integer": int, "boolean": _truth, "list": _numbers}
