# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""How a volume and a question become the parts of a prompt."""

from __future__ import annotations

from dataclasses import dataclass

from monai_medpruner.errors import SettingsError

__all__ = ["VolumePrompt"]


@dataclass(frozen=True)
class VolumePrompt:
    """How a volume is written into a prompt: instruction, then every kept slice with its text, then the question.

    Args:
        instruction: text before the first slice; may be empty.
        before_slice: text before each slice's image, ``{number}`` being the slice's own number, counted from 1 over the
            whole volume.
        after_slice: text after each slice's image, with the same field.
        separator: text between one slice and the next.
        question: text after the last slice, ``{question}`` being the question.
        image_parts: whether each image is a part of the message, for the chat template to write; else its marker is
            written into the text, for models whose template would add to it.

    Raises:
        SettingsError: a text lacks its field, or has an unknown one.
    """

    instruction: str = ""
    before_slice: str = "Slice {number}:"
    after_slice: str = ""
    separator: str = ""
    question: str = "{question}"
    image_parts: bool = True

    def __post_init__(self) -> None:
        try:
            self.before_slice.format(number=1), self.after_slice.format(number=1)
            complete = "?" in self.question.format(question="?")
        except (KeyError, IndexError, ValueError) as error:
            raise SettingsError(f"a prompt text holds an unknown field or a lone brace: {error}") from error
        if not complete:
            raise SettingsError("the prompt's question text must hold the field {question}")

    def content(self, numbers: list[int], question: str, marker: str) -> list[dict[str, str]]:
        """The parts of the user's message, as chat templates take them; empty texts are left out.

        Args:
            numbers: of the kept slices, counted from 1.
            question: plain text.
            marker: what stands for an image in the text, where images are no parts of their own.
        """
        image = None if self.image_parts else marker
        parts: list[str | None] = [self.instruction]
        for index, number in enumerate(numbers):
            parts += [self.separator if index else "", self.before_slice.format(number=number)]
            parts += [image, self.after_slice.format(number=number)]
        # not by format: a question may hold braces
        parts.append(self.question.replace("{question}", question))
        if not self.image_parts:
            # one text: templates may set parts off from each other
            parts = ["".join(part for part in parts if part is not None)]
        return [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts if part != ""]
