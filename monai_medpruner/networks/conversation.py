# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A conversation about a volume as the text that the model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_medpruner.errors import PromptError, QuestionError
from monai_medpruner.networks.families import ModelFamily
from monai_medpruner.networks.volume_prompt import VolumePrompt

__all__ = ["conversation_text"]


def conversation_text(
    prompt: VolumePrompt,
    tokenizer: Any,
    family: ModelFamily,
    grids: list[tuple[int, int]],
    slice_indices: list[int],
    question: str | Sequence[str],
) -> str:
    """The prompt of a volume as text, each slice's placeholders written out.

    Args:
        prompt: how the volume is written into it.
        tokenizer: of the checkpoint, with its chat template.
        family: writes an image's placeholders.
        grids: rows and columns of each kept slice's tokens.
        slice_indices: of the kept slices, counted from 0; the prompt counts from 1.
        question: plain text; or a conversation: the first question, its answer, and so on, ending in a question.

    Raises:
        QuestionError: a text is not text, is empty, or holds special tokens of the model, or the conversation does
            not end in a question.
        PromptError: the chat template writes another number of images than there are slices.
    """
    texts = _checked_texts(question, tokenizer)
    marker = family.image_marker(tokenizer)
    content = prompt.content([index + 1 for index in slice_indices], texts[0], marker)
    turns = [{"role": "user", "content": content}]
    for number, turn in enumerate(texts[1:]):
        role = "user" if number % 2 else "assistant"
        turns.append({"role": role, "content": [{"type": "text", "text": turn}]})
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    pieces = text.split(marker)
    if len(pieces) != len(grids) + 1:
        raise PromptError(f"the chat template wrote {len(pieces) - 1} images for {len(grids)} slices")
    written = [family.image_text(tokenizer, rows * columns) for rows, columns in grids]
    return pieces[0] + "".join(image + piece for image, piece in zip(written, pieces[1:], strict=True))


def _checked_texts(question: Any, tokenizer: Any) -> list[str]:
    """A question, or a conversation that ends in one, as a list of texts that can be asked."""
    texts = list(question) if isinstance(question, (list, tuple)) else [question]
    if len(texts) % 2 == 0:
        raise QuestionError("a conversation must end in a question")
    # a tokenizer may mark more tokens as special than it lists as such
    marked = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    special = [*tokenizer.all_special_tokens, *marked]
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise QuestionError(f"a question must be text and not empty, got {type(text).__name__}")
        if held := [token for token in special if token in text]:
            raise QuestionError(f"a question must not hold the model's special tokens, and one holds {held[0]!r}")
    return texts
