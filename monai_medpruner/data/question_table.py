# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""User-defined benchmarks: questions in a CSV or JSONL file next to the images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_medpruner.data.annotation_files import find_annotations, read_json_lines, read_table, text_field
from monai_medpruner.data.benchmark_items import TASKS, BenchmarkItems, present_choices
from monai_medpruner.errors import BenchmarkError

__all__ = ["load_question_table"]

_REQUIRED = ("image", "question", "answer")
_OPTIONAL = ("answer_choice", "type", "subtype", "id", "task")
_CHOICE_COLUMN = "choice_"


def load_question_table(
    folder: PathLike,
    annotations: str | None = None,
    images: PathLike | None = None,
    task: str | None = None,
    mode: str = "clean",
    missing_images: str = "refuse",
) -> list[dict[str, Any]]:
    """List the questions of a user-defined table.

    Required columns (CSV) or keys (JSONL) are ``image`` (path), ``question`` and ``answer``; optional are
    ``answer_choice`` (letter), ``type``, ``subtype``, ``id`` (unique) and ``task``. Choices are the columns
    ``choice_a``, ``choice_b``, … of a CSV (empty, "-" or "NA" for an absent choice), or ``choices`` (letter -> text) in
    JSONL. Without ``task``, questions with choices or an ``answer_choice`` are closed and others open. Other columns
    are ignored.

    Args:
        folder: folder with one ``.csv`` or ``.jsonl`` file.
        annotations: the file to use, relative to the folder, if there are several.
        images: folder that image paths are relative to; None for the folder of the table.
        task: "closed", "open" or "report"; None for all.
        mode: "clean", or "official" to keep absent choices in the items.
        missing_images: "refuse" or "keep"; see :class:`~.benchmark_items.BenchmarkItems`.

    Returns:
        items with the keys of :data:`~.benchmark_items.ITEM_KEYS`.

    Raises:
        BenchmarkError: the table is missing or malformed; the message has the line.
        MissingImagesError: images are missing.
        SettingsError: an argument is invalid.
    """
    root = Path(folder).expanduser()
    table = find_annotations(root, ["*.csv", "*.jsonl"], annotations)
    items = BenchmarkItems([table.parent if images is None else Path(images).expanduser()], task, mode, missing_images)
    rows = read_json_lines(table) if table.suffix.lower() == ".jsonl" else read_table(table, _REQUIRED)
    for where, row in rows:
        choices = _choices(row, where)
        optional = {key: text_field(row, key, where) if row.get(key) else "" for key in _OPTIONAL}
        letter = {"answer": optional["answer_choice"]}
        asked = optional["task"] or ("closed" if choices or present_choices(letter, "clean") else "open")
        if asked not in TASKS:
            raise BenchmarkError(f"{where}: task must be one of {TASKS}, found {asked!r}")
        image, question, answer = (text_field(row, key, where) for key in _REQUIRED)
        items.add(
            where,
            [image],
            question,
            answer,
            asked,
            choices,
            optional["answer_choice"].strip(),
            type=optional["type"],
            subtype=optional["subtype"],
            id=optional["id"] or None,
        )
    return items.datalist()


def _choices(row: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return letter -> text; empty if every choice is marked absent."""
    if isinstance(row.get("choices"), Mapping):
        cells = {letter: text_field(row["choices"], letter, where) for letter in row["choices"]}
    elif row.get("choices"):
        raise BenchmarkError(f"{where}: expected letters and texts under 'choices'; in a CSV, columns choice_a, …")
    else:
        cells = {
            key.removeprefix(_CHOICE_COLUMN).upper(): text_field(row, key, where)
            for key in row
            if key.startswith(_CHOICE_COLUMN)
        }
    return cells if present_choices(cells, "clean") else {}
