# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The boundary to MONAI's command line, and the only module that reads it.

``python -m monai.bundle run`` makes values of the words after its options, and a configuration executes or replaces
texts among them as soon as something refers to them. The check here runs first, in a bundle's ``initialize``.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from fire.parser import DefaultParseValue

from monai_medpruner.data.image_list import VERBATIM_HINT
from monai_medpruner.errors import SettingsError
from monai_medpruner.settings import NONE

__all__ = ["check_texts", "optional"]

# settings whose texts may stand in a questions file instead
_QUESTIONS = ("image", "question")
_PATH_HINT = "Choose a name without # $ @ % or , and write a name that is a number as a path: ./12"


def optional(value: Any) -> Any:
    """Return a setting's value, or None for the text ``none``, which a command line has in place of null."""
    return None if isinstance(value, str) and value == NONE else value


def check_texts(names: Sequence[str]) -> None:
    """Refuse texts on the command line that MONAI would execute, replace or change.

    A configuration executes a text that begins with ``$`` and replaces one that begins with ``@`` or ``%``. ``#``
    begins a comment in an option's value, or becomes ``::``. ``left, right`` becomes a tuple, ``12`` a number. Lists of
    plain texts, and texts in quotation marks of their own, arrive as they are.

    For the first place of ``initialize``, so that nothing has referred to the texts yet. MONAI has evaluated import
    statements (``$import name``) and has read files that ``%`` names by then.

    Args:
        names: of the settings that are texts or paths.

    Raises:
        SettingsError: a text would not arrive as it was written.
    """
    for name, written in _written(names):
        if reason := _change(written):
            hint = VERBATIM_HINT if name in _QUESTIONS else _PATH_HINT
            raise SettingsError(f"--{name} would not arrive as the text that was written: {reason}. {hint}")
    if names and any(True for _ in _written(("preset",))):
        raise SettingsError(
            "a preset is a file here: instead of --preset NAME write --config_file "
            "\"['configs/inference.json','configs/preset_NAME.json']\""
        )


def _written(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield those of the settings that are on the command line, with the text after each, as fire reads them."""
    words = sys.argv[1:]
    for index, word in enumerate(words):
        if not re.match(r"--|-[A-Za-z]", word):
            continue
        key, equals, text = word.lstrip("-").partition("=")
        # parts of a list, "--image::0", count as the setting
        name = re.split("::|#", key.replace("-", "_"))[0]
        if name not in names:
            continue
        if equals:
            yield name, text
        elif index + 1 < len(words):
            yield name, words[index + 1]


def _change(written: str) -> str:
    """What would happen to a text; empty where it arrives as it was written."""
    value = DefaultParseValue(written)
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str):
            return f"it would become a value of type {type(value).__name__}"
        if text.startswith("$"):
            return "text that begins with $ would be executed"
        if text.startswith(("@", "%")) or re.search("[@%]::", text):
            return "text with @ or % would be replaced"
    if "#" in written:
        return "what follows # would be cut off, or # would become ::"
    if value != written and value != _literal(written):
        return f"it would become {value!r}"
    return ""


def _literal(text: str) -> Any:
    """The texts of a literal in quotation marks; None where it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
