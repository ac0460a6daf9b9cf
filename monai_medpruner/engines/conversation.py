# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A conversation about a volume, and the text of its prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monai_medpruner.engines.volume_prompt import VolumePrompt
from monai_medpruner.errors import PromptError, QuestionError, SettingsError
from monai_medpruner.networks import ModelFamily

__all__ = ["Conversation", "conversation_text"]

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Conversation:
    """Questions about a volume, with the template of the prompt.

    Args:
        prompt: template of the prompt.
        turns: plain texts: one question; or alternating questions and answers that end with a question.
        max_new_tokens: length limit of the answer; None for the engine's.

    Raises:
        QuestionError: a turn is not text, is empty or is not valid in Unicode, or the conversation does not end with a
            question.
        SettingsError: the limit is not positive.
    """

    prompt: VolumePrompt
    turns: tuple[str, ...]
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise SettingsError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if len(self.turns) % 2 == 0:
            raise QuestionError(
                f"a conversation must end with a question, so it needs an odd number of turns, got {len(self.turns)}"
            )
        for text in self.turns:
            if not isinstance(text, str) or not text.strip():
                found = "an empty text" if isinstance(text, str) else type(text).__name__
                raise QuestionError(f"a question must be text and not empty, got {found}")
            if _SURROGATE.search(text):  # a byte of a command line or a file that is no UTF-8, which no tokenizer takes
                raise QuestionError("a question has a character that is not valid in Unicode: it must be UTF-8 text")

    @classmethod
    def about(
        cls, prompt: VolumePrompt, question: str | Sequence[str], max_new_tokens: int | None = None
    ) -> Conversation:
        """Return the conversation of one question, or of several turns."""
        if isinstance(question, (list, tuple)):
            return cls(prompt, tuple(question), max_new_tokens)
        return cls(prompt, (question,), max_new_tokens)  # type: ignore[arg-type]


def conversation_text(
    conversation: Conversation,
    tokenizer: Any,
    family: ModelFamily,
    grids: Sequence[tuple[int, int]],
    slice_indices: Sequence[int],
) -> str:
    """Return the prompt of a volume as text, with placeholders for all tokens of each slice before pruning.

    Args:
        conversation: the conversation.
        tokenizer: tokenizer of the checkpoint, with its chat template.
        family: model family, which writes the placeholders of an image.
        grids: rows and columns of each kept slice's tokens.
        slice_indices: indices of the kept slices, from 0. The prompt counts from 1.

    Raises:
        QuestionError: a turn or the system prompt contains special tokens of the model.
        PromptError: the checkpoint has no chat template, or the number of images that it writes is not the number of
            slices.
    """
    if not tokenizer.chat_template:
        raise PromptError(
            "the checkpoint has no chat template, neither in chat_template.jinja nor in chat_template.json, "
            "processor_config.json or tokenizer_config.json; add the model's chat_template.jinja"
        )
    turns = conversation.turns
    system = conversation.prompt.system
    _check_special_tokens([*turns, system], tokenizer, family)
    marker = family.image_marker(tokenizer)
    content = conversation.prompt.content([index + 1 for index in slice_indices], turns[0], marker)
    messages = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    messages.append({"role": "user", "content": content})
    for number, turn in enumerate(turns[1:]):
        role = "user" if number % 2 else "assistant"
        messages.append({"role": role, "content": [{"type": "text", "text": turn}]})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pieces = text.split(marker)
    if len(pieces) != len(grids) + 1:
        raise PromptError(
            f"the chat template wrote {len(pieces) - 1} images for {len(grids)} slices, expected one per slice; turn "
            "off crops (pan and scan) in the image processor, check image_parts of the prompt, and whether the "
            "template is that of the language model alone, which knows no images"
        )
    written = [family.image_text(tokenizer, rows * columns) for rows, columns in grids]
    return pieces[0] + "".join(image + piece for image, piece in zip(written, pieces[1:], strict=True))


def _check_special_tokens(texts: Sequence[str], tokenizer: Any, family: ModelFamily) -> None:
    """Refuse texts with special tokens of the model, which would change the structure of the prompt.

    Tokens are looked for as text and as ids, since a tokenizer may make one of other characters that it normalizes.
    """
    # some tokens are marked as special but missing from all_special_tokens; that of an image need not be marked
    marked = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = [*tokenizer.all_special_tokens, *marked.values(), family.image_marker(tokenizer)]
    ids = {*tokenizer.all_special_ids, *marked, family.image_token_id} - {tokenizer.unk_token_id}
    for text in texts:
        held = [token for token in special if token in text]
        if not held and (made := ids.intersection(tokenizer(text, add_special_tokens=False)["input_ids"])):
            held = [tokenizer.convert_ids_to_tokens(min(made))]
        if held:
            raise QuestionError(f"a question must not contain special tokens of the model, got {held[0]!r}; remove it")
