# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Strict readers for tables and JSON files of benchmarks; errors name the file and, if known, the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_medpruner.errors import BenchmarkError

__all__ = ["find_annotations", "read_json_file", "read_json_lines", "read_table", "text_field"]


def find_annotations(folder: Path, candidates: Sequence[str], chosen: str | None = None) -> Path:
    """Find the file or folder with the questions of a benchmark.

    Args:
        folder: folder of the benchmark.
        candidates: glob patterns relative to the folder.
        chosen: path relative to the folder that overrides the candidates.

    Raises:
        BenchmarkError: no candidate exists, or several do.
    """
    if not folder.is_dir():
        raise BenchmarkError(f"{folder} is not a folder")
    if chosen is not None and (folder / chosen).exists():
        return folder / chosen
    patterns = candidates if chosen is None else [chosen]
    found = sorted({path for pattern in candidates for path in folder.glob(pattern)}) if chosen is None else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise BenchmarkError(f"{folder} does not contain {' or '.join(patterns)}")
    names = ", ".join(str(path.relative_to(folder)) for path in found)
    raise BenchmarkError(f"{folder} contains several annotation files: {names}. Choose one with annotations")


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the location ("file, line 3") and the cells of each row of a CSV file.

    A byte order mark and CRLF line ends are accepted.

    Args:
        path: UTF-8 file with a header line.
        columns: required columns; other columns are included in the rows.

    Raises:
        BenchmarkError: the file is unreadable, a column is missing or duplicated, or a row has too few or too many
            cells.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = list(reader.fieldnames or [])
            if absent := [name for name in columns if name not in names]:
                raise BenchmarkError(f"{path} lacks the columns {absent}; it has {names}")
            if len(set(names)) < len(names):
                raise BenchmarkError(f"{path} has a duplicate column: {names}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                # DictReader stores surplus cells under the key None, and missing cells as None
                if None in row or None in row.values():
                    raise BenchmarkError(f"{where}: expected {len(names)} cells, as in the header")
                yield where, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchmarkError(f"{path} cannot be read as a CSV file ({error})") from error


def read_json_file(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        BenchmarkError: the file is unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise BenchmarkError(f"{path}, line {error.lineno}: not JSON ({error.msg} at column {error.colno})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path} cannot be read as a JSON file ({error})") from error


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the location ("file, line 3") and the object of each non-blank line.

    Raises:
        BenchmarkError: the file is unreadable, or a line is not a JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path} cannot be read as a JSONL file ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise BenchmarkError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
        if not isinstance(entry, dict):
            raise BenchmarkError(f"{where}: expected an object, found {type(entry).__name__}")
        yield where, entry


def text_field(entry: Any, key: str | int, where: str) -> str:
    """Return the text under a key (or list index) of a JSON value.

    Raises:
        BenchmarkError: the value is missing or not text.
    """
    container = Mapping if isinstance(key, str) else list
    inside = isinstance(entry, container) and (key in entry if isinstance(key, str) else key < len(entry))
    value = entry[key] if inside else None
    if not isinstance(value, str):
        raise BenchmarkError(f"{where}: expected text under {key!r}, found {type(value).__name__}")
    return value
