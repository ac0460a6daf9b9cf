# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""MedUniEval's test files: conversations about folders of slices, whose closed questions list their choices."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from monai_medpruner.data.annotation_files import read_json_file, text_field
from monai_medpruner.errors import BenchmarkError

__all__ = ["Conversation", "read_conversations", "split_answer", "split_choices"]

_IMAGE_MARK = re.compile(r"<(?:image|video)>\n?")
# around a choice's letter: "A.", "(A)", "[A]", "A)", "A:", "**A.**", full-width forms, with a blank after it or none
_OPENED, _CLOSED = r"[(\[（*_]*", r"(?:[*_]*[.):\]．）：、](?!\w\.\w?)[*_]*)"
#: how choices are marked, from the clearest on: each on a line of its own, on such a line with no sign, in running text
_MARKS = (
    re.compile(rf"^[^\S\n]*{_OPENED}([A-Za-z]){_CLOSED}[^\S\n]*", flags=re.MULTILINE),
    re.compile(r"^[^\S\n]*([A-Z])[^\S\n]+", flags=re.MULTILINE),
    re.compile(rf"(?:(?<=\s)|^){_OPENED}([A-Za-z]){_CLOSED}\s*"),
)
_CHOICES_WORD = re.compile(r"\s*(?:Choices|Options)(?:\s+are)?\s*[:：]?\s*$", flags=re.IGNORECASE)
#: a last line that says how to answer, which belongs to the prompt and not to the last choice
_INSTRUCTION = re.compile(r"\n\s*(?:Please\s+)?(?:answer|choose|select|respond|reply)\b[^\n]*\s*$", flags=re.IGNORECASE)
_ANSWER_LETTER = re.compile(
    rf"\s*(?:(?:option|choice)\s+)?{_OPENED}([A-Za-z])(?:[*_]*[.):\]．）：、][*_]*\s*|[*_]*\s*$)(.*)",
    flags=re.DOTALL | re.IGNORECASE,
)


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
    """Split a question from the choices that follow it, with consecutive letters from A.

    The letters are capitals or small letters, marked as in "A. Yes", "A.Yes", "(A) Yes", "A) Yes" or "A: Yes"; choices
    stand in one line ("… A. Yes B. No") or in a line each, where a letter alone suffices ("A Yes"). A line after them
    that says how to answer is left out.

    Returns:
        the question, and letter (a capital) -> text; the unchanged question and no choices if it does not end with
        choices.
    """
    text = _INSTRUCTION.sub("", question)
    for style in _MARKS:
        marks = list(style.finditer(text))
        letters = "".join(mark[1] for mark in marks)
        # a mark before the first choice, as in "hepatitis B. A. Yes", leaves open where the choices begin
        if len(marks) < 2 or letters not in (ascii_uppercase[: len(marks)], ascii_lowercase[: len(marks)]):
            continue
        ends = [mark.start() for mark in marks[1:]] + [len(text)]
        texts = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
        if all(re.search(r"\w", one) for one in texts[:2]):  # later ones may be absent
            bare = _CHOICES_WORD.sub("", text[: marks[0].start()]).rstrip()
            return bare, dict(zip(letters.upper(), texts, strict=True))
    return question, {}


def split_answer(answer: str, choices: Mapping[str, str]) -> tuple[str | None, str]:
    """Split the answer to a closed question, such as "B. No", "B.No", "B" or the text of a choice.

    Returns:
        the letter, or None if there is none, and the text; for a bare letter, the text of that choice.
    """
    plain = answer.strip().casefold()
    same = [letter for letter, text in choices.items() if text.strip().casefold() == plain]
    if len(same) == 1:
        return same[0], choices[same[0]]
    if (match := _ANSWER_LETTER.fullmatch(answer)) is None:
        return None, answer
    letter = match[1].upper()
    return letter, match[2].strip() or choices.get(letter, answer)
