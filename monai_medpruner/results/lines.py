# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The lines of ``answers.jsonl`` and ``predictions.jsonl``, which share one schema."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from typing import Any, TextIO

from monai_medpruner.errors import OutputFolderError
from monai_medpruner.results.answer import Answer
from monai_medpruner.results.stage_times import STAGES
from monai_medpruner.results.study_record import StudyRecord
from monai_medpruner.results.versions import package_versions

__all__ = ["LINE_SCHEMA", "append_line", "json_line", "result_line"]

#: JSON Schema of a line
LINE_SCHEMA: dict[str, Any] = json.loads(
    files("monai_medpruner.results").joinpath("result_line.schema.json").read_text(encoding="utf-8")
)
# a file name that is no UTF-8 has such characters, which no encoding can write
_SURROGATES = re.compile("[\ud800-\udfff]")
# fields that come from the question
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
    """Return a result line.

    Args:
        question: ``id``, ``image``, ``question``, and, if known, ``prompt`` (the text sent to the model),
            ``reference``, ``choices``, ``reference_choice``, ``type``, ``subtype``, ``task``.
        settings: settings of the run.
        record: record of the study; None if it could not be read or encoded.
        answer: answer to the question; None if there is none.
        error: class and message of the error; None if there is none.
        first: whether this is the first question about the study. Its line has the seconds of the stages that all
            questions share; in other lines they are 0.
        peak_memory: peak memory in bytes; None if it was not measured.
        notes: notes in addition to those of the record.

    Returns:
        A line that follows :data:`LINE_SCHEMA`.
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
        line["notes"] = [*line["notes"], *(answer.notes if answer is not None else ()), *notes]
        line["seconds"] = {stage: round(spent.get(stage, 0.0), 6) for stage in STAGES}
        line["peak_memory_mb"] = None if peak_memory is None else round(peak_memory / 1e6, 1)
    return {**line, "settings": dict(settings), "versions": package_versions()}


def json_line(line: Mapping[str, Any]) -> str:
    """Return a line of a JSON Lines file, which UTF-8 can encode and :func:`json.loads` reads back unchanged."""
    text = json.dumps(line, ensure_ascii=False)
    return _SURROGATES.sub(lambda found: f"\\u{ord(found.group()):04x}", text) + "\n"


def append_line(file: TextIO, line: Mapping[str, Any]) -> None:
    """Append a line to a file of JSON Lines that was opened to append. It is on disk when this function returns.

    Where it cannot be written whole, such as on a full disk, what was written of it is removed.

    Raises:
        OutputFolderError: the file cannot be written.
    """
    descriptor = file.fileno()
    start = os.fstat(descriptor).st_size
    # not through the file's buffer, which would keep the rest of a line and write it later
    rest = memoryview(json_line(line).encode())
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except BaseException as error:
        with suppress(OSError):
            os.ftruncate(descriptor, start)
        if not isinstance(error, OSError):
            raise
        raise OutputFolderError(
            f"cannot write to {file.name}: {error.strerror or error}. The lines before are kept"
        ) from error
