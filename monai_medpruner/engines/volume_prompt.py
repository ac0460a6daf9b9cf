# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The template of the prompt for a volume and a question."""

from __future__ import annotations

from dataclasses import dataclass

from monai_medpruner.errors import SettingsError

__all__ = ["VolumePrompt"]


@dataclass(frozen=True)
class VolumePrompt:
    """Template of a prompt: the instruction, then each kept slice with its text, then the question.

    Args:
        instruction: text before the first slice; may be empty.
        before_slice: text before each slice's image. ``{number}`` is the number of the slice in the whole volume,
            ``{place}`` its place among the slices of the prompt; both are counted from 1.
        after_slice: text after each slice's image, with the same fields.
        separator: text between two slices.
        question: text after the last slice. ``{question}`` is the question.
        image_parts: True makes each image a part of the message, which the chat template writes. False writes the
            placeholder of the image into the text, for models whose template adds text to an image.
        system: text of a system message before the user's; empty for no such message.

    Raises:
        SettingsError: a text lacks its field, or has an unknown one.
    """

    instruction: str = ""
    before_slice: str = "Slice {number}:"
    after_slice: str = ""
    separator: str = ""
    question: str = "{question}"
    image_parts: bool = True
    system: str = ""

    def __post_init__(self) -> None:
        try:
            self.before_slice.format(number=1, place=1), self.after_slice.format(number=1, place=1)
            complete = "?" in self.question.format(question="?")
        except (KeyError, IndexError, ValueError) as error:
            raise SettingsError(
                f"a text of the prompt has an unknown field or a single brace: {error}; the fields are {{number}} "
                "and {{place}} around a slice and {question} in the question, and a literal brace is written twice"
            ) from error
        if not complete:
            raise SettingsError(f"the prompt's question must contain the field {{question}}, got {self.question!r}")

    def content(self, numbers: list[int], question: str, marker: str) -> list[dict[str, str]]:
        """Return the parts of the user's message in the form of chat templates, without empty texts.

        Args:
            numbers: numbers of the kept slices, from 1.
            question: plain text.
            marker: placeholder of an image, used if ``image_parts`` is False.
        """
        image = None if self.image_parts else marker
        parts: list[str | None] = [self.instruction]
        for place, number in enumerate(numbers, start=1):
            fields = {"number": number, "place": place}
            parts += [self.separator if place > 1 else "", self.before_slice.format(**fields)]
            parts += [image, self.after_slice.format(**fields)]
        # not with str.format: a question may contain braces
        parts.append(self.question.replace("{question}", question))
        if not self.image_parts:
            # a single text, because templates may separate the parts
            parts = ["".join(part for part in parts if part is not None)]
        return [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts if part != ""]
