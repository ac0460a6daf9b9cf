# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A conversation about a volume, and the text that the model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monai_medpruner.engines.volume_prompt import VolumePrompt
from monai_medpruner.errors import PromptError, QuestionError
from monai_medpruner.networks import ModelFamily

__all__ = ["Conversation", "conversation_text"]


@dataclass(frozen=True)
class Conversation:
    """Questions about a volume and how the volume is written into the prompt.

    Args:
        prompt: the prompt's form.
        turns: plain texts: a question; or the first question, its answer, and so on, ending in a question.

    Raises:
        QuestionError: a turn is not text or is empty, or the conversation does not end in a question.
    """

    prompt: VolumePrompt
    turns: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.turns) % 2 == 0:
            raise QuestionError("a conversation must end in a question")
        for text in self.turns:
            if not isinstance(text, str) or not text.strip():
                raise QuestionError(f"a question must be text and not empty, got {type(text).__name__}")

    @classmethod
    def about(cls, prompt: VolumePrompt, question: str | Sequence[str]) -> Conversation:
        """A conversation of one question, or of the turns given."""
        if isinstance(question, (list, tuple)):
            return cls(prompt, tuple(question))
        return cls(prompt, (question,))  # type: ignore[arg-type]


def conversation_text(
    conversation: Conversation,
    tokenizer: Any,
    family: ModelFamily,
    grids: Sequence[tuple[int, int]],
    slice_indices: Sequence[int],
) -> str:
    """The prompt of a volume as text, with the placeholders of each slice's unpruned tokens.

    Args:
        conversation: to write.
        tokenizer: of the checkpoint, with its chat template.
        family: writes an image's placeholders.
        grids: rows and columns of each kept slice's tokens.
        slice_indices: of the kept slices, counted from 0; the prompt counts from 1.

    Raises:
        QuestionError: a turn holds special tokens of the model.
        PromptError: the chat template writes another number of images than there are slices.
    """
    turns = conversation.turns
    _check_special_tokens(turns, tokenizer)
    marker = family.image_marker(tokenizer)
    content = conversation.prompt.content([index + 1 for index in slice_indices], turns[0], marker)
    messages = [{"role": "user", "content": content}]
    for number, turn in enumerate(turns[1:]):
        role = "user" if number % 2 else "assistant"
        messages.append({"role": role, "content": [{"type": "text", "text": turn}]})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pieces = text.split(marker)
    if len(pieces) != len(grids) + 1:
        raise PromptError(f"the chat template wrote {len(pieces) - 1} images for {len(grids)} slices")
    written = [family.image_text(tokenizer, rows * columns) for rows, columns in grids]
    return pieces[0] + "".join(image + piece for image, piece in zip(written, pieces[1:], strict=True))


def _check_special_tokens(texts: Sequence[str], tokenizer: Any) -> None:
    """Refuse texts that hold special tokens of the model, which would change the prompt's structure."""
    # a tokenizer may mark more tokens as special than it lists as such
    marked = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    special = [*tokenizer.all_special_tokens, *marked]
    for text in texts:
        if held := [token for token in special if token in text]:
            raise QuestionError(f"a question must not hold the model's special tokens, and one holds {held[0]!r}")
