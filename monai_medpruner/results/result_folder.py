# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Read the output folder of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_medpruner.errors import OutputFolderError
from monai_medpruner.results.study_record import StudyRecord
from monai_medpruner.terminal_text import package_logger

__all__ = ["RunResults", "read_lines", "read_results"]

logger = package_logger(__name__)

_LINE_FILES = ("answers.jsonl", "predictions.jsonl")


@dataclass(frozen=True)
class RunResults:
    """The output folder of a run.

    Args:
        folder: path of the folder.
        lines: lines of ``answers.jsonl`` or ``predictions.jsonl``, in the order of the file.
        metrics: content of ``metrics.json``; None if there is no such file.
    """

    folder: Path
    lines: list[dict[str, Any]]
    metrics: dict[str, Any] | None = None

    @property
    def record_names(self) -> list[str]:
        """Names of the records, in the order in which the lines first name them."""
        return list(dict.fromkeys(line["record"] for line in self.lines if "record" in line))

    def record(self, name: str) -> StudyRecord:
        """Load the record that a line names under "record".

        Raises:
            OutputFolderError: the record is missing or damaged.
        """
        return StudyRecord.load(self.folder / "records" / f"{name}.safetensors")


def read_results(folder: str | Path) -> RunResults:
    """Read the output folder of a run.

    Raises:
        OutputFolderError: the folder has neither answers nor predictions, or a file in it is damaged.
    """
    place = Path(folder)
    found = next((place / name for name in _LINE_FILES if (place / name).is_file()), None)
    if found is None:
        raise OutputFolderError(f"{place} has neither {' nor '.join(_LINE_FILES)}; give the output folder of a run")
    metrics = place / "metrics.json"
    try:
        content = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else None
    except ValueError as error:
        raise OutputFolderError(f"{metrics} is damaged: {error}") from error
    return RunResults(place, read_lines(found), content)


def read_lines(file: str | Path) -> list[dict[str, Any]]:
    """Read a file of result lines. An incomplete last line, of a run that was killed, is left out with a warning.

    Raises:
        OutputFolderError: the file cannot be read, or a line is not a JSON object.
    """
    try:
        # not with splitlines, which also splits at Unicode line separators inside texts
        *whole, rest = Path(file).read_bytes().split(b"\n")
        lines = [json.loads(text) for text in whole if text]
        if rest:
            lines += _last_line(rest, file)
    except (OSError, ValueError) as error:
        raise OutputFolderError(f"{file} cannot be read as the results of a run: {error}") from error
    if not all(isinstance(line, dict) for line in lines):
        raise OutputFolderError(f"{file} cannot be read as the results of a run: a line is not a JSON object")
    return lines


def _last_line(text: bytes, file: str | Path) -> list[Any]:
    """Return a last line without its end; nothing, with a warning, if it is the beginning of one."""
    try:
        return [json.loads(text)]
    except ValueError:
        if not text.startswith(b"{"):
            raise
        logger.warning("the last line of %s is incomplete (interrupted run) and is left out", file)
        return []
