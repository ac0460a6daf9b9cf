# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Check texts on MONAI's command line. No other module reads the command line.

``python -m monai.bundle run`` parses the values of its options, and a configuration executes or replaces some texts as
soon as something refers to them. A bundle's ``initialize`` therefore runs the check of this module first.
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

# settings whose texts can be given in a questions file instead
_QUESTIONS = ("image", "question")
_PATH_HINT = "Use a name without # $ @ % or , and write a name that is a number as a path: ./12"


def optional(value: Any) -> Any:
    """Return a setting's value, or None for the text ``none``, which stands for null on a command line."""
    return None if isinstance(value, str) and value == NONE else value


def check_texts(names: Sequence[str]) -> None:
    """Refuse texts on the command line that MONAI would execute, replace or change.

    A configuration executes a text that begins with ``$`` and replaces one that begins with ``@`` or ``%``. ``#``
    starts a comment in an option's value, or becomes ``::``. ``left, right`` becomes a tuple, and ``12`` a number.
    Lists of plain texts, and texts in their own quotation marks, are not changed.

    Call this first in ``initialize``, before anything refers to the texts. By then, MONAI has already evaluated import
    statements (``$import name``) and read files named with ``%``.

    Args:
        names: names of the settings that are texts or paths.

    Raises:
        SettingsError: MONAI would execute, replace or change a text.
    """
    for name, written in _written(names):
        if reason := _change(written):
            hint = VERBATIM_HINT if name in _QUESTIONS else _PATH_HINT
            raise SettingsError(f"MONAI would not read --{name} as the text that was given: {reason}. {hint}")
    if names and any(True for _ in _written(("preset",))):
        raise SettingsError(
            "a preset is a file here: instead of --preset NAME write --config_file "
            "\"['configs/inference.json','configs/preset_NAME.json']\""
        )


def _written(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the settings that are on the command line, each with its text, parsed as fire does."""
    words = sys.argv[1:]
    for index, word in enumerate(words):
        if not re.match(r"--|-[A-Za-z]", word):
            continue
        key, equals, text = word.lstrip("-").partition("=")
        # "--image::0" sets an element of a list and counts as "--image"
        name = re.split("::|#", key.replace("-", "_"))[0]
        if name not in names:
            continue
        if equals:
            yield name, text
        elif index + 1 < len(words):
            yield name, words[index + 1]


def _change(written: str) -> str:
    """Return how MONAI would change a text; empty if it would not."""
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
        return "the text after # would be cut off, or # would become ::"
    if value != written and value != _literal(written):
        return f"it would become {value!r}"
    return ""


def _literal(text: str) -> Any:
    """Return the value of a Python literal, such as a text in quotation marks; None if it is not a literal."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
