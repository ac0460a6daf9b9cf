# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A small tokenizer with the words of the phantom questions; other text is tokenized by byte."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from monai_medpruner.data.phantom import QUESTIONS
from monai_medpruner.metrics import find_protocol
from monai_medpruner.testing import TinyModel, byte_tokenizer

__all__ = ["phantom_tokenizer"]


def phantom_tokenizer(model: TinyModel) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer trained on questions, choices and answers, in which each word is one token.

    Args:
        model: defines the special tokens and the image placeholder.
    """
    return byte_tokenizer(model, _texts())


def _texts() -> list[str]:
    """Return every question in every format, and every answer, both alone and in a list of choices."""
    protocol = find_protocol("meduni-vqa")
    texts = ["user\n", "assistant\n"]
    for question, choices in QUESTIONS.values():
        for shift in range(len(choices)):
            listed = dict(zip("ABCD", (*choices[shift:], *choices[:shift]), strict=False))
            texts.append(protocol.prompt(question, listed))
        texts += [protocol.prompt(question), question, *choices]
    return texts
