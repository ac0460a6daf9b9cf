# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The answers of a run as a text table, with the truth, the retention and the seconds per stage."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from monai_medpruner.errors import BenchmarkError, OutputFolderError
from monai_medpruner.results import read_lines
from monai_medpruner.terminal_text import printable

__all__ = ["answer_table", "kept_text", "seconds_text"]

_UNKNOWN = "(unknown)"
_FIELDS = {"image", "question", "answer", "slices", "tokens", "seconds", "settings"}
_FAILED_FIELDS = {"image", "question", "status", "error"}


def answer_table(answers: Path, truth: Path | None = None) -> str:
    """Return a text table of a run's answers, grouped by volume.

    Args:
        answers: ``answers.jsonl``, or the folder that contains it.
        truth: folder of phantoms, or a table with the columns "Image Path", "Question" and "Answer" of M3D-VQA. A row
            belongs to a volume if the volume's path ends with the row's path. An answer is right if it equals the
            row's, ignoring case. Questions without a row have the truth "(unknown)".

    Returns:
        For each volume: the model, one line per question, the kept slices and tokens, the seconds per stage, and the
        notes. A volume that failed has its error instead.

    Raises:
        OutputFolderError: there are no answers, or the file was not written by a bundle's inference.
        BenchmarkError: the truth is not such a table.
    """
    file = answers / "answers.jsonl" if answers.is_dir() else answers
    lines = _read_answers(file)
    known = _read_truth(truth) if truth is not None else []
    text: list[str] = []
    for image, group in groupby(lines, key=lambda line: line["image"]):
        asked = list(group)
        answered = [line for line in asked if not _failed(line)]
        if answered:
            text += _volume(image, answered, known, truth is not None)
        errors = Counter(line["error"] for line in asked if _failed(line))
        text += [f"{image}: {count} question(s) failed: {printable(error)}\n" for error, count in errors.items()]
    return "\n".join(text) + "\n"


def _read_answers(file: Path) -> list[dict[str, Any]]:
    lines = read_lines(file)
    if not lines or not all(line.keys() >= (_FAILED_FIELDS if _failed(line) else _FIELDS) for line in lines):
        raise OutputFolderError(
            f"{file} has no answers of a bundle's inference, whose lines have the fields {', '.join(sorted(_FIELDS))}; "
            "give the output folder of a run"
        )
    return lines


def _failed(line: Mapping[str, Any]) -> bool:
    return line.get("status", "ok") != "ok"


def _read_truth(path: Path) -> list[dict[str, str]]:
    file = path / "M3D_VQA_test.csv" if path.is_dir() else path
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{file} cannot be read as a table of questions: {error}") from error
    if not rows or not {"Image Path", "Question", "Answer"} <= rows[0].keys():
        raise BenchmarkError(f"{file} must have rows with the columns 'Image Path', 'Question' and 'Answer'")
    return rows


def _volume(
    image: str, lines: Sequence[dict[str, Any]], known: Sequence[Mapping[str, str]], compared: bool
) -> list[str]:
    """Return the table, the retention and the seconds of the questions about one volume."""
    rows = [["question", "answer", *(["truth"] if compared else [])]]
    right: list[bool] = []
    for line in lines:
        answer = " ".join(line["answer"].split())
        rows.append([line["question"], answer])
        if compared:
            truth = _truth_of(image, line["question"], known)
            if truth is not None:
                right.append(answer.casefold() == truth.casefold())
            rows[-1].append(_UNKNOWN if truth is None else truth if right[-1] else f"{truth}  <- the answer is wrong")
    rows = [[printable(cell) for cell in row] for row in rows]  # before they are aligned
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    settings, slices, tokens = (lines[0][name] for name in ("settings", "slices", "tokens"))
    model = settings["model"]
    random = " with random weights" if model["random_weights"] else ""
    text = [f"{image}, read by {model['model_type']}{random} from {model['model_id']}", ""]
    text += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    text.append("")
    if right:
        text.append(f"right: {sum(right)} of {len(right)}")
    text += [kept_text(slices, tokens), seconds_text([line["seconds"] for line in lines])]
    notes = dict.fromkeys(note for line in lines for note in line.get("notes", ()))
    return [*text, *(f"note: {note}" for note in notes), ""]


def kept_text(slices: Mapping[str, Any], tokens: Mapping[str, Any]) -> str:
    """Return a line with the kept slices and tokens.

    Args:
        slices: the field "slices" of a result line.
        tokens: its field "tokens".
    """
    share = 100 * tokens["kept"] / tokens["unpruned"]
    gap = slices.get("largest_gap_mm")  # null without geometry
    largest = "" if gap is None else f" (largest gap {gap:.1f} mm)"
    dropped = len(slices.get("dropped_after_encoding", ()))
    encoded = "" if not dropped else f", and one token of each of {dropped} others"
    return (
        f"kept: {slices['kept'] - dropped} of {slices['total']} slices{largest}{encoded}, "
        f"{tokens['kept']:,} of {tokens['unpruned']:,} visual tokens ({share:.1f} %)"
    )


def seconds_text(seconds: Sequence[Mapping[str, float]]) -> str:
    """Return a line with the seconds of the stages, summed over some answers.

    Args:
        seconds: the fields "seconds" of result lines.
    """
    spent = {stage: sum(one.get(stage, 0.0) for one in seconds) for stage in seconds[0]}
    listed = ", ".join(f"{stage} {value:.2f}" for stage, value in spent.items())
    return f"seconds: {sum(spent.values()):.2f} ({listed})"


def _truth_of(image: str, question: str, known: Sequence[Mapping[str, str]]) -> str | None:
    """Return the answer of the row with this question whose path is the end of the image's path."""
    path = Path(image).parts
    for row in known:
        parts = Path(row["Image Path"]).parts
        if row["Question"] == question and path[-len(parts) :] == parts:
            return row["Answer"]
    return None
