# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Text to tokens, under the names that protocols use."""

from __future__ import annotations

import re
from collections.abc import Callable

from monai_medpruner.errors import SettingsError

__all__ = ["TOKENIZERS", "tokenize"]

_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
#: mteval-v13a's rules: symbols apart; "." and "," apart unless between digits; "-" apart after a digit
_RULES_13A = (
    (re.compile(r"([!-&(-+:-@/\[-`{-~])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def _tokenize_13a(text: str) -> list[str]:
    """The rules of mteval-v13a, as in sacreBLEU and in Hugging Face's ``bleu``."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    text = f" {text} "
    for pattern, replacement in _RULES_13A:
        text = pattern.sub(replacement, text)
    return text.split()


def _word_tokenize(text: str) -> list[str]:
    """NLTK's Treebank rules on the whole text: needs no sentence model, which would be a download."""
    # NLTK takes a second to import: naming a protocol must not wait for it
    from nltk.tokenize import word_tokenize

    return word_tokenize(text, preserve_line=True)


def _space_before_dots(text: str) -> list[str]:
    """MedUniEval's report tokens: split at spaces alone, so that a line break stays inside a token."""
    return [token for token in text.replace(".", " .").split(" ") if token]


#: every tokenizer by the name that protocols and configurations use
TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "split": str.split,
    "13a": _tokenize_13a,
    "word_tokenize": _word_tokenize,
    "space_before_dots": _space_before_dots,
}


def tokenize(text: str, tokenizer: str) -> list[str]:
    """Split a text into tokens.

    Args:
        text: any text; case is kept.
        tokenizer: one of :data:`TOKENIZERS`: "split" (white space), "13a" (mteval-v13a), "word_tokenize" (NLTK's
            Treebank rules with ``preserve_line=True``), "space_before_dots" (MedUniEval's reports).

    Returns:
        The tokens; none for an empty text.

    Raises:
        SettingsError: no tokenizer has that name.
    """
    if tokenizer not in TOKENIZERS:
        raise SettingsError(f"no tokenizer is named {tokenizer!r}; there are: {', '.join(TOKENIZERS)}")
    return TOKENIZERS[tokenizer](text)
