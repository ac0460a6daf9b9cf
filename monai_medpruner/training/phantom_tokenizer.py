# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A small tokenizer whose words are those of the phantoms' questions; any other text passes byte by byte."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from monai_medpruner.data.phantom import QUESTIONS
from monai_medpruner.metrics import find_protocol
from monai_medpruner.testing import TinyModel, byte_tokenizer

__all__ = ["phantom_tokenizer"]


def phantom_tokenizer(model: TinyModel) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose merges are learned from questions, choices and answers: each word is one token.

    Args:
        model: whose special tokens and way of writing an image it gets.
    """
    return byte_tokenizer(model, _texts())


def _texts() -> list[str]:
    """Every question in every form it is asked in, and every answer, as it begins an answer and within a list."""
    protocol = find_protocol("meduni-vqa")
    texts = ["user\n", "assistant\n"]
    for question, choices in QUESTIONS.values():
        for shift in range(len(choices)):
            listed = dict(zip("ABCD", (*choices[shift:], *choices[:shift]), strict=False))
            texts.append(protocol.prompt(question, listed))
        texts += [protocol.prompt(question), question, *choices]
    return texts
