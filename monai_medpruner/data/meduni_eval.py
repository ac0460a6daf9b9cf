# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Items of MedUniEval's question files, ``M3D_test.json`` and ``Rad3D_test.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from monai_medpruner.data.annotation_files import text_field
from monai_medpruner.data.benchmark_items import BenchmarkItems
from monai_medpruner.data.conversations import read_conversations, split_answer, split_choices

__all__ = ["add_conversations"]


def add_conversations(items: BenchmarkItems, source: Path, types: Mapping[str, str] | None = None) -> None:
    """Add the items of a conversation file.

    Args:
        items: receives the items; in its mode "official", questions keep the choices in their text.
        source: file with items {"conversations", "video", "Question_Type", "type", "sub-type"}.
        types: names of types that the file gives by other names, such as numbers.

    Raises:
        BenchmarkError: the file or an item is malformed; the message has the item's number.
    """
    for entry in read_conversations(source):
        question, letter, answer = entry.question.strip(), None, entry.answer
        choices: dict[str, str] = {}
        closed = "CLOSE" in text_field(entry.entry, "Question_Type", entry.where).upper()
        if closed:
            bare, choices = split_choices(question)
            letter, answer = split_answer(entry.answer, choices)
            if items.mode == "clean":
                question = bare
        kind = str(entry.entry.get("type", ""))
        items.add(
            entry.where,
            [entry.image],
            question,
            answer,
            "closed" if closed else "open",
            choices,
            letter,
            type=(types or {}).get(kind, kind),
            subtype=str(entry.entry.get("sub-type", "")),
            verbatim=entry.question,
        )
