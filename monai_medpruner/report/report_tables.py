# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The parts of a study's page that need no script: answers, what became of a lesion, times, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from monai_medpruner.report.html import Html, element
from monai_medpruner.report.lesion_shares import LesionShares
from monai_medpruner.report.report_data import (
    RunOfStudy,
    flat_settings,
    gap_text,
    lesion_table,
    stage_estimates,
    without_files,
)
from monai_medpruner.results import STAGES

__all__ = ["answer_section", "comparison_section", "fact_section", "lesion_section", "time_section"]


def answer_section(run: RunOfStudy, other: RunOfStudy | None, deidentified: bool) -> Html:
    """Return the questions and answers; with another run those that differ come first."""
    theirs = {} if other is None else {line["question"]: line for line in other.lines}
    pairs = [(line, theirs.get(line["question"])) for line in run.lines]
    if other is not None:
        pairs.sort(key=lambda pair: not _differs(*pair))
    rows = [_answer(line, one, other is not None) for line, one in pairs]
    failed = [
        element(
            "tr",
            element("td", line.get("question") or ""),
            element("td", element("em", f"failed: {_failure(line, deidentified)}")),
        )
        for line in run.failed
    ]
    titles = ["Question", "Answer", *(["Answer of the other run"] if other is not None else [])]
    return element(
        "section",
        element("h2", "Questions and answers"),
        element(
            "table",
            element("thead", element("tr", *(element("th", one, scope="col") for one in titles))),
            element("tbody", *rows, *failed),
            class_="answers",
        ),
    )


def _differs(line: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    return other is None or " ".join(line["answer"].split()).casefold() != " ".join(other["answer"].split()).casefold()


def _answer(line: Mapping[str, Any], other: Mapping[str, Any] | None, compared: bool) -> Html:
    cells = [element("td", element("bdi", line.get("question") or "")), element("td", *_answer_text(line))]
    if compared:
        other_text = [element("em", "not asked")] if other is None else _answer_text(other)
        mark = [element("strong", "differs: ", class_="differs")] if _differs(line, other) else []
        cells.append(element("td", *mark, *other_text))
    return element("tr", *cells)


def _answer_text(line: Mapping[str, Any]) -> list[Html]:
    parts = [element("bdi", line.get("answer") or "(empty)", class_="answer")]
    if line.get("status", "ok") != "ok":
        parts = [element("em", f"failed: {line['status']}")]
    if line.get("truncated"):
        parts.append(element("em", " (cut off at its length limit)"))
    if line.get("reference") is not None:
        parts.append(element("p", "reference: ", element("bdi", line["reference"]), class_="sub"))
    if line.get("raw_answer"):
        parts.append(
            element("details", element("summary", "with the model's reasoning"), element("p", line["raw_answer"]))
        )
    return parts


def _failure(line: Mapping[str, Any], deidentified: bool) -> str:
    return str(line.get("status")) if deidentified else f"{line.get('status')}: {line.get('error')}"


def comparison_section(run: RunOfStudy, other: RunOfStudy, deidentified: bool) -> Html:
    """Return what two runs kept of a study, and the settings that tell them apart."""
    rows = [(name, mine, theirs) for (name, mine), (_, theirs) in zip(_kept(run), _kept(other), strict=True)]
    settings = [dict(flat_settings(one.lines[0].get("settings", {}), deidentified)) for one in (run, other)]
    for name in dict.fromkeys((*settings[0], *settings[1])):
        mine, theirs = (one.get(name, "–") for one in settings)
        if mine != theirs:
            rows.append((name, mine, theirs))
    titles = ("", "A: this run", "B: the other run")
    return element(
        "section",
        element("h2", "The two runs"),
        element(
            "table",
            element("thead", element("tr", *(element("th", one, scope="col") for one in titles))),
            element(
                "tbody",
                *(element("tr", element("th", a, scope="row"), element("td", b), element("td", c)) for a, b, c in rows),
            ),
            class_="settings compared",
        ),
        element("p", "Settings that are the same are left out.", class_="legend"),
    )


def _kept(run: RunOfStudy) -> list[tuple[str, str]]:
    record = run.record
    read = len(record.slice_indices) - len(record.dropped_slices)
    return [
        ("slices read", f"{read} of {record.total_slices}"),
        (
            "visual tokens",
            f"{sum(record.kept_tokens):,} of {record.unpruned_tokens:,} ({record.retention['overall']:.1%})",
        ),
        ("largest unread gap", gap_text(record)),
    ]


def lesion_section(run: RunOfStudy, other: RunOfStudy | None, mask: np.ndarray | None) -> Html | None:
    """Return what each stage kept of a lesion; None without a mask."""
    if mask is None:
        return None
    table = lesion_table(mask, run.record)
    if not table:
        return element("section", element("h2", "Lesion"), element("p", "The mask is empty.", class_="note"))
    theirs = [] if other is None else lesion_table(mask, other.record)
    runs = [("", table)] if other is None else [("this run: ", table), ("other run: ", theirs)]
    places = range(len(table))
    facts = [replace(one[place], name=f"{whose}{one[place].name}") for place in places for whose, one in runs]
    titles = (
        *("", "slices read", "in slices read", "encoded"),
        *("in selected tokens", "in contextual tokens", "merged into others"),
    )
    return element(
        "section",
        element("h2", "What each stage kept of the lesion"),
        *(element("p", _named(one.name), element("strong", one.verdict), f" {one.why}") for one in facts),
        element(
            "div",
            element(
                "table",
                element("thead", element("tr", *(element("th", one, scope="col") for one in titles))),
                element("tbody", *(_lesion_row(one.name, one.shares) for one in facts)),
                class_="numbers",
            ),
            class_="scroll",
        ),
        element(
            "p",
            "Shares of the lesion's voxels; a voxel belongs to the token at its center. A contextual token is the mean "
            "of the tokens that were merged into it.",
            class_="legend",
        ),
        id="lesion",
    )


def _named(name: str) -> str:
    return "" if name == "lesion" else f"{name[0].upper()}{name[1:]}. "


def _lesion_row(name: str, shares: LesionShares) -> Html:
    first, last = shares.slices[0], shares.slices[-1]
    values = [
        f"{len(shares.kept_slices)} of {len(shares.slices)} (slices {first} to {last})",
        *(f"{one:.1%}" for one in (shares.read, shares.encoded, shares.selected, shares.contextual, shares.merged)),
    ]
    return element("tr", element("th", name, scope="row"), *(element("td", one) for one in values))


def time_section(run: RunOfStudy) -> Html:
    """Return the seconds of the stages as bars, against the estimate without pruning."""
    measured, unpruned, note = stage_estimates(run)
    bars = [("with pruning, measured", measured), *([("without pruning, estimated", unpruned)] if unpruned else [])]
    longest = max(sum(one.values()) for _, one in bars) or 1.0
    rows = []
    for name, seconds in bars:
        rows.append(element("p", f"{name}: {sum(seconds.values()):.2f} s", class_="bar_title"))
        rows.append(_bar(seconds, longest))
        listed = ", ".join(f"{stage} {seconds[stage]:.2f} s" for stage in STAGES)
        rows.append(element("p", listed, class_="legend"))
    return element("section", element("h2", "Time"), *rows, element("p", note, class_="legend"))


def _bar(seconds: Mapping[str, float], longest: float) -> Html:
    """A bar whose parts are told apart by their order, their shade and their letter."""
    parts, start = [], 0.0
    for place, stage in enumerate(STAGES):
        width = 1000 * seconds[stage] / longest
        if width > 0:
            parts.append(
                element(
                    "g",
                    element("title", f"{stage} {seconds[stage]:.3f} s"),
                    element(
                        "rect",
                        x=f"{start:.1f}",
                        y="0",
                        width=f"{max(width - 1.5, 0.5):.1f}",
                        height="34",
                        class_=f"stage{place}",
                    ),
                    element("text", stage, x=f"{start + 6:.1f}", y="23", class_=f"stage{place}")
                    if width > 75
                    else None,
                )
            )
        start += width
    return element("svg", *parts, viewBox="0 0 1000 34", class_="bar", role="img", preserveAspectRatio="xMinYMid meet")


def fact_section(run: RunOfStudy, deidentified: bool) -> Html:
    """Return notes, settings and versions."""
    record, line = run.record, run.lines[0]
    notes = list(dict.fromkeys(note for one in run.lines for note in one.get("notes", ())))
    notes = notes or record.summary()["notes"]
    if deidentified:
        notes = [without_files(note) for note in notes]
    facts = [
        ("image", "(left out)" if deidentified else record.image or "not from a file"),
        ("volume", record.volume_id),
        ("size", " × ".join(map(str, record.geometry.shape)) + " (rows, columns, slices)"),
        *(
            []
            if record.geometry.crop is None
            else [("encoded part", f"rows {record.geometry.crop[0]}, columns {record.geometry.crop[1]}")]
        ),
    ]
    return element(
        "section",
        element("h2", "Notes"),
        element("ul", *(element("li", note) for note in notes))
        if notes
        else element("p", "Nothing unusual was noted."),
        element("h2", "Settings and versions"),
        _table("The study", facts, opened=True),
        _table("All settings", flat_settings(line.get("settings", {}), deidentified)),
        _table("Versions", list(line.get("versions", {}).items())),
    )


def _table(title: str, rows: Sequence[tuple[str, object]], opened: bool = False) -> Html:
    return element(
        "details",
        element("summary", title),
        element(
            "table",
            *(element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows),
            class_="settings",
        ),
        open=opened,
    )
