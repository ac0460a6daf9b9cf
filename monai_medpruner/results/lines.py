# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The lines of ``answers.jsonl`` and ``predictions.jsonl``: one schema, one place that makes them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, TextIO

from monai_medpruner.results.answer import Answer
from monai_medpruner.results.stage_times import STAGES
from monai_medpruner.results.study_record import StudyRecord
from monai_medpruner.results.versions import package_versions

__all__ = ["LINE_SCHEMA", "append_line", "result_line"]

#: JSON Schema of a line
LINE_SCHEMA: dict[str, Any] = json.loads(
    files("monai_medpruner.results").joinpath("result_line.schema.json").read_text(encoding="utf-8")
)
# what a question brings with it; the rest of a line is made here
_QUESTION = ("id", "image", "question", "prompt", "reference", "choices", "reference_choice", "type", "subtype", "task")


def result_line(
    question: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    record: StudyRecord | None = None,
    answer: Answer | None = None,
    error: tuple[str, str] | None = None,
    first: bool = False,
    peak_memory: int | None = None,
    notes: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Make a line of results.

    Args:
        question: ``id``, ``image``, ``question``, and where they are known ``prompt`` (what was asked), ``reference``,
            ``choices``, ``reference_choice``, ``type``, ``subtype``, ``task``.
        settings: of the run.
        record: of the study; None where it could not be read or encoded.
        answer: None where there is none.
        error: class and message of what went wrong; None where nothing did.
        first: whether this is the first question about the study: the stages that all its questions share stand on
            its line, and on the others as 0.
        peak_memory: bytes.
        notes: further notes, beside those of the record.

    Returns:
        a line that :data:`LINE_SCHEMA` describes.
    """
    status, message = error or ("ok", None)
    line: dict[str, Any] = {"id": None, "image": None, "question": None, "prompt": None, "answer": ""}
    line |= {name: question.get(name) for name in _QUESTION}
    line |= {"status": status, "error": message}
    spent: dict[str, float] = dict(record.seconds) if record is not None and first else {}
    if answer is not None:
        line |= answer.summary()
        spent |= answer.seconds
    if record is not None:
        line |= record.summary()
        line["notes"] = [*line["notes"], *notes]
        line["seconds"] = {stage: round(spent.get(stage, 0.0), 6) for stage in STAGES}
        line["peak_memory_mb"] = None if peak_memory is None else round(peak_memory / 1e6, 1)
    return {**line, "settings": dict(settings), "versions": package_versions()}


def append_line(file: TextIO, line: Mapping[str, Any]) -> None:
    """Append a line to a file of JSON lines; it is on disk when this returns.

    Raises:
        OSError: the file cannot be written.
    """
    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    file.flush()
    os.fsync(file.fileno())
