# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Reader for MedUniEval's test files: conversations about folders of slices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_medpruner.data.annotation_files import read_json_file, text_field
from monai_medpruner.errors import BenchmarkError

__all__ = ["Conversation", "read_conversations", "split_answer", "split_choices"]

_IMAGE_MARK = re.compile(r"<(?:image|video)>\n?")
_CHOICE = re.compile(r"(?:^|\s)\(?([A-Z])[.):]\s+")
_CHOICES_WORD = re.compile(r"\s*(?:Choices|Options):?\s*$", flags=re.IGNORECASE)
_ANSWER_LETTER = re.compile(r"\s*\(?([A-Za-z])(?:[.):]\s*|\s*$)(.*)", flags=re.DOTALL)


@dataclass(frozen=True)
class Conversation:
    """One item of a conversation file.

    Attributes:
        where: location in the file.
        image: path of the slices, as stated in the file.
        question: the question without the image placeholder.
        answer: the answer, verbatim.
        entry: the complete entry of the file.
    """

    where: str
    image: str
    question: str
    answer: str
    entry: dict[str, Any]


def read_conversations(path: Path) -> Iterator[Conversation]:
    """Yield the items ``{"conversations": [{"value": question}, {"value": answer}], "video": [folder], …}``.

    Raises:
        BenchmarkError: the file is not JSON or an item is malformed; the message has its number, counted from 0.
    """
    entries = read_json_file(path)
    if not isinstance(entries, list):
        raise BenchmarkError(f"{path}: expected a list of items, found {type(entries).__name__}")
    for number, entry in enumerate(entries):
        where = f"{path}, item {number}"
        if not isinstance(entry, dict) or not {"conversations", "video"} <= set(entry):
            raise BenchmarkError(f"{where}: expected an object with 'conversations' and 'video'")
        turns = entry["conversations"]
        if not isinstance(turns, list) or len(turns) != 2:
            raise BenchmarkError(f"{where}: expected a question and an answer in 'conversations'")
        question, answer = (text_field(turn, "value", where) for turn in turns)
        yield Conversation(where, text_field(entry["video"], 0, where), _IMAGE_MARK.sub("", question), answer, entry)


def split_choices(question: str) -> tuple[str, dict[str, str]]:
    """Split a question from the choices that follow it ("… A. Yes B. No"), with consecutive letters from A.

    Returns:
        the question, and letter -> text; the unchanged question and no choices if it does not end with choices.
    """
    marks = list(_CHOICE.finditer(question))  # another match, as in "hepatitis B. A. Yes", prevents the split
    if len(marks) < 2 or [mark[1] for mark in marks] != [chr(ord("A") + i) for i in range(len(marks))]:
        return question, {}
    ends = [mark.start() for mark in marks[1:]] + [len(question)]
    choices = {mark[1]: question[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)}
    return _CHOICES_WORD.sub("", question[: marks[0].start()]).rstrip(), choices


def split_answer(answer: str, choices: dict[str, str]) -> tuple[str | None, str]:
    """Split the answer to a closed question, such as "B. No", "B" or the text of a choice, into letter and text.

    Returns:
        the letter, or None if there is none, and the text; for a bare letter, the text of that choice.
    """
    same = [letter for letter, text in choices.items() if text == answer.strip()]
    if len(same) == 1:
        return same[0], choices[same[0]]
    if (match := _ANSWER_LETTER.fullmatch(answer)) is None:
        return None, answer
    letter = match[1].upper()
    return letter, match[2].strip() or choices.get(letter, answer)
