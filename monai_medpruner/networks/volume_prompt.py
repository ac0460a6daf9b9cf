# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

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
        question: text after the last slice, ``{question}`` being the question.

    Raises:
        SettingsError: a text lacks its field, or has an unknown one.
    """

    instruction: str = ""
    before_slice: str = "Slice {number}:"
    after_slice: str = ""
    question: str = "{question}"

    def __post_init__(self) -> None:
        try:
            self.before_slice.format(number=1), self.after_slice.format(number=1)
            complete = "?" in self.question.format(question="?")
        except (KeyError, IndexError, ValueError) as error:
            raise SettingsError(f"a prompt text holds an unknown field or a lone brace: {error}") from error
        if not complete:
            raise SettingsError("the prompt's question text must hold the field {question}")

    def content(self, numbers: list[int], question: str) -> list[dict[str, str]]:
        """The parts of the user's message, as chat templates take them; empty texts are left out."""
        parts: list[str | None] = [self.instruction]
        for number in numbers:
            parts += [self.before_slice.format(number=number), None, self.after_slice.format(number=number)]
        # not by format: a question may hold braces
        parts.append(self.question.replace("{question}", question))
        return [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts if part != ""]
