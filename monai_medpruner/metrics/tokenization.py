# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Tokenizers used by the evaluation protocols."""

from __future__ import annotations

import re
from collections.abc import Callable

from monai_medpruner.errors import SettingsError

__all__ = ["TOKENIZERS", "tokenize"]

_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
#: mteval-v13a: split off symbols; split off "." and "," unless between digits; split off "-" after a digit
_RULES_13A = (
    (re.compile(r"([!-&(-+:-@/\[-`{-~])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def _tokenize_13a(text: str) -> list[str]:
    """Tokenize by the rules of mteval-v13a, as sacreBLEU and Hugging Face's ``bleu`` do."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    text = f" {text} "
    for pattern, replacement in _RULES_13A:
        text = pattern.sub(replacement, text)
    return text.split()


def _word_tokenize(text: str) -> list[str]:
    """Tokenize the whole text by NLTK's Treebank rules; this needs no downloaded sentence model."""
    # imported here because NLTK takes a second, which listing the protocols should not cost
    from nltk.tokenize import word_tokenize

    return word_tokenize(text, preserve_line=True)


def _space_before_dots(text: str) -> list[str]:
    """Tokenize as MedUniEval does for reports: split only at spaces, so line breaks stay inside tokens."""
    return [token for token in text.replace(".", " .").split(" ") if token]


#: tokenizers by name
TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "split": str.split,
    "13a": _tokenize_13a,
    "word_tokenize": _word_tokenize,
    "space_before_dots": _space_before_dots,
}


def tokenize(text: str, tokenizer: str) -> list[str]:
    """Split a text into tokens.

    Args:
        text: any text; case is preserved.
        tokenizer: one of :data:`TOKENIZERS`: "split" (white space), "13a" (mteval-v13a), "word_tokenize" (NLTK's
            Treebank rules with ``preserve_line=True``), "space_before_dots" (MedUniEval's reports).

    Returns:
        The tokens; an empty list for an empty text.

    Raises:
        SettingsError: the tokenizer is unknown.
    """
    if tokenizer not in TOKENIZERS:
        raise SettingsError(f"unknown tokenizer {tokenizer!r}; expected one of: {', '.join(TOKENIZERS)}")
    return TOKENIZERS[tokenizer](text)
