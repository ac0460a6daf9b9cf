# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The HTML of a study's page: one file, whose only scripts and styles are its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from typing import Any

import numpy as np

from monai_medpruner.report.html import Html, element, inline_hash, script_data, text
from monai_medpruner.report.report_data import RunOfStudy
from monai_medpruner.report.report_tables import (
    answer_section,
    comparison_section,
    fact_section,
    lesion_section,
    time_section,
)
from monai_medpruner.results import StudyRecord

__all__ = ["PageParts", "report_page"]

_PHANTOM_BUNDLE = "medpruner_phantom"


@dataclass(frozen=True, eq=False)
class PageParts:
    """What a page shows besides the run.

    Args:
        data: of :func:`~.report_data.viewer_data`.
        pictures: a sentence on the pictures; None without pictures.
        note: what the page lacks; None where nothing is.
        mask: labels ``(H, W, D)`` in the view of the record; None for none.
        deidentified: whether paths are left out.
    """

    data: Mapping[str, Any]
    pictures: str | None
    note: str | None
    mask: np.ndarray | None
    deidentified: bool


def report_page(run: RunOfStudy, other: RunOfStudy | None, parts: PageParts) -> str:
    """Return the page.

    Args:
        run: the study.
        other: the same study in another run; None for none.
        parts: what else is shown.
    """
    style, script = _asset("report.css"), _asset("report.js")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {inline_hash(style)}; script-src {inline_hash(script)}"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"What the model was given: {_title(run.record, parts.deidentified)}"),
        element("style", Html(style)),
    )
    body = element(
        "body",
        _header(run.record, run.lines[0], parts),
        element(
            "main",
            answer_section(run, other, parts.deidentified),
            None if other is None else comparison_section(run, other, parts.deidentified),
            _viewer(run, other, parts),
            lesion_section(run, other, parts.mask),
            time_section(run),
            fact_section(run, parts.deidentified),
        ),
        element("footer", "Not for clinical use. Slices are counted from 0, as in --slices and in the records."),
        element("script", script_data(parts.data), type="application/json", id="data"),
        element("script", Html(script)),
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n{head}\n{body}\n</html>\n'


def _asset(name: str) -> str:
    return files("monai_medpruner.report").joinpath("assets", name).read_text(encoding="utf-8")


def _title(record: StudyRecord, deidentified: bool) -> str:
    return f"study {record.volume_id[:12]}" if deidentified or not record.image else PurePath(record.image).name


def _header(record: StudyRecord, line: Mapping[str, Any], parts: PageParts) -> Html:
    retention = record.retention
    left = len(record.dropped_slices)
    gap = record.largest_gap
    whole = "of all" if record.range_slices is None else "of the chosen range"
    tiles = [
        (
            "Slices read",
            f"{len(record.slice_indices) - left} of {record.total_slices}",
            f"{retention['slices']:.1%} {whole}",
        ),
        (
            "Visual tokens",
            f"{sum(record.kept_tokens):,} of {record.unpruned_tokens:,}",
            f"{retention['overall']:.1%} {whole}",
        ),
        (
            "Largest unread gap",
            "unknown" if gap is None else f"{gap.length_mm:.1f} mm",
            "the file has no geometry" if gap is None else f"slices {gap.first} to {gap.last}",
        ),
        ("Volume", f"{record.source or 'in memory'}{f', {record.modality}' if record.modality else ''}", _view(record)),
    ]
    warnings = [element("strong", "Not for clinical use."), *(text(f" {one}") for one in _model_warnings(line))]
    return element(
        "header",
        element("p", *warnings, class_="banner"),
        element("h1", _title(record, parts.deidentified)),
        element("p", _model_name(line, parts.deidentified), class_="model"),
        element("button", "Light or dark", type="button", id="theme", class_="noprint"),
        element(
            "dl",
            *(element("div", element("dt", a), element("dd", b), element("dd", c, class_="sub")) for a, b, c in tiles),
            class_="tiles",
        ),
    )


def _view(record: StudyRecord) -> str:
    return ", ".join(one for one in (record.plane, record.order) if one) or "plane unknown"


def _model_warnings(line: Mapping[str, Any]) -> list[str]:
    model = line.get("settings", {}).get("model", {})
    warnings = []
    if model.get("random_weights"):
        warnings.append("The model has random weights: its answers mean nothing.")
    if _PHANTOM_BUNDLE in PurePath(str(model.get("model_id"))).parts:
        warnings.append("The model was trained on synthetic phantoms: its answers about patients mean nothing.")
    return warnings


def _model_name(line: Mapping[str, Any], deidentified: bool) -> str:
    model = line.get("settings", {}).get("model", {})
    name = PurePath(str(model.get("model_id", "unknown")))
    shown = str(name) if len(name.parts) <= 2 and not name.is_absolute() else name.name
    pruner = (line.get("settings", {}).get("pruner") or {}).get("name", "none")
    if deidentified and name.is_absolute():
        shown = "(left out)"
    return f"Model {shown} ({model.get('model_type', 'unknown')}), pruner {pruner}"


def _viewer(run: RunOfStudy, other: RunOfStudy | None, parts: PageParts) -> Html:
    compared = other is not None
    return element(
        "section",
        element("h2", "Slices and tokens"),
        element("p", parts.note, class_="note") if parts.note else None,
        element(
            "noscript", element("p", "The pictures and charts need JavaScript, which is in this file.", class_="note")
        ),
        element("div", id="strip", class_="strip", role="listbox", aria_label="All slices", tabindex="0"),
        element("p", _strip_legend(compared), class_="legend"),
        element("div", id="distances", class_="chart"),
        element("p", id="distance_note", class_="legend"),
        element(
            "div",
            element("button", "‹", type="button", id="previous", title="Previous slice (left arrow)"),
            element(
                "input",
                type="range",
                id="slider",
                min="0",
                max=run.record.total_slices - 1,
                value="0",
                aria_label="Slice",
            ),
            element("button", "›", type="button", id="next", title="Next slice (right arrow)"),
            element("output", id="number", for_="slider"),
            class_="controls noprint",
        ),
        element(
            "div",
            element("div", id="windows", class_="choices", role="group", aria_label="Window"),
            element("div", id="layers", class_="choices", role="group", aria_label="Overlay"),
            class_="controls noprint",
        ),
        element(
            "div",
            element("div", id="figures", class_="figures"),
            element(
                "div",
                element("p", id="why", aria_live="polite"),
                element("div", id="counts"),
                element("div", id="mass", class_="chart"),
                element("p", id="mass_note", class_="legend"),
                class_="side",
            ),
            class_="viewer",
        ),
        element("p", _token_legend(), class_="legend"),
        element(
            "p",
            "Keys: left and right change the slice, page up and down go to the nearest kept one, 1 to 3 choose the "
            "window, t tokens, l lines, h heat map, o outline. On a touch screen, swipe over the slice.",
            class_="legend noprint",
        ),
        element("p", parts.pictures, class_="legend") if parts.pictures else None,
        element("p", id="compared", class_="note") if compared else None,
    )


def _strip_legend(compared: bool) -> Html:
    parts = [
        element("span", class_="key kept"),
        " kept ",
        element("span", class_="key guard"),
        " kept by the guard (G, its block is dotted in the slice) ",
        element("span", class_="key left"),
        " dropped behind the encoder ",
        element("span", class_="key dropped"),
        " dropped, not read",
    ]
    if compared:
        parts.append(" · A: kept here · B: kept in the other run")
    return Html("".join(text(one) for one in parts))


def _token_legend() -> Html:
    return Html(
        "Squares with a solid frame are selected tokens, dashed squares with a dot contextual ones; lines lead to what "
        "these absorbed (point at a token for its own). Hatched and dark: dropped, or merged "
        "into another token. Pale: cropped away, never encoded."
    )
