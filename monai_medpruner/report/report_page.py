# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The HTML of a study's page: one file, whose only scripts and styles are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from monai_medpruner.report.html import Html, element, text
from monai_medpruner.report.lesion_verdict import lesion_state
from monai_medpruner.report.page_shell import asset, model_name, page_header, page_shell, tiles
from monai_medpruner.report.report_data import LesionFacts, RunOfStudy, gap_text, lesion_table, unread_gap
from monai_medpruner.report.report_tables import (
    answer_section,
    comparison_section,
    fact_section,
    lesion_section,
    time_section,
)
from monai_medpruner.results import StudyRecord

__all__ = ["PageParts", "model_text", "report_page", "study_tiles", "study_title"]


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
    return page_shell(
        f"What the model was given: {study_title(run.record, parts.deidentified)}",
        page_header(
            study_title(run.record, parts.deidentified),
            model_text(run.lines[0], parts.deidentified),
            [run.lines[0].get("settings", {}).get("model", {})],
            study_tiles(run.record, parts.mask),
        ),
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
        script=asset("report.js"),
        data=parts.data,
    )


def study_title(record: StudyRecord, deidentified: bool = False) -> str:
    """Return what a page calls a study: the name of its file, or the beginning of its id."""
    return f"study {record.volume_id[:12]}" if deidentified or not record.image else PurePath(record.image).name


def study_tiles(record: StudyRecord, mask: np.ndarray | None = None) -> Html:
    """Return what was kept of a study as tiles.

    Args:
        record: of the study.
        mask: labels ``(H, W, D)`` in the view of the record, for a tile on the lesion; None for none.
    """
    retention = record.retention
    left = len(record.dropped_slices)
    whole = "of all" if record.range_slices is None else "of the chosen range"
    facts: list[tuple[str, str, str]] = [
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
        ("Largest unread gap", gap_text(record), _gap_remark(record)),
        ("Volume", f"{record.source or 'in memory'}{f', {record.modality}' if record.modality else ''}", _view(record)),
    ]
    if mask is not None and (lesions := lesion_table(mask, record)):
        facts.append(("Lesion", element("a", _lesion_tile(lesions), href="#lesion"), _lesion_remark(lesions)))
    return tiles(facts)


def model_text(line: Mapping[str, Any], deidentified: bool = False) -> str:
    """Return the model and the pruner of a result line as a page names them."""
    model = line.get("settings", {}).get("model", {})
    pruner = (line.get("settings", {}).get("pruner") or {}).get("name", "none")
    return f"Model {model_name(model, deidentified)} ({model.get('model_type', 'unknown')}), pruner {pruner}"


def _gap_remark(record: StudyRecord) -> str:
    widest, gap = record.largest_gap, unread_gap(record)
    if widest is None:
        return "the file has no geometry"
    return f"slices at most {widest.length_mm:.1f} mm apart" if gap is None else f"slices {gap.first} to {gap.last}"


def _lesion_tile(lesions: Sequence[LesionFacts]) -> str:
    states = [lesion_state(one.shares) for one in lesions]
    return states[0] if len(states) == 1 else f"{states.count('seen')} of {len(states)} seen"


def _lesion_remark(lesions: Sequence[LesionFacts]) -> str:
    if len(lesions) > 1:
        return "see what each stage kept"
    shares = lesions[0].shares
    read = f"{len(shares.kept_slices)} of its {len(shares.slices)} slices read"
    return f"{read}, {shares.selected:.0%} in selected tokens"


def _view(record: StudyRecord) -> str:
    return ", ".join(one for one in (record.plane, record.order) if one) or "plane unknown"


def _viewer(run: RunOfStudy, other: RunOfStudy | None, parts: PageParts) -> Html:
    compared = other is not None
    states = {one["state"] for name in ("slices", "other") for one in parts.data.get(name, ())}
    return element(
        "section",
        element("h2", "Slices and tokens"),
        element("p", parts.note, class_="note") if parts.note else None,
        element(
            "noscript", element("p", "The pictures and charts need JavaScript, which is in this file.", class_="note")
        ),
        element("div", id="strip", class_="strip", role="listbox", aria_label="All slices", tabindex="0"),
        element("p", _strip_legend(states, compared, parts.data["outlines"] is not None), class_="legend"),
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
        _terms(),
        element("p", id="compared", class_="note") if compared else None,
    )


def _strip_legend(states: set[str], compared: bool, lesion: bool) -> Html:
    """Explain the frames of the strip that occur, and the letters on it."""
    known = {
        "kept": "kept",
        "guard": "kept by the guard (G, its block is dotted in the slice)",
        "left": "dropped after the encoder, but for one token",
        "dropped": "dropped, not read",
    }
    parts: list[object] = []
    for state, words in known.items():
        if state in states:
            parts += [element("span", class_=f"key {state}"), f" {words} "]
    if compared:
        parts.append(" · A: kept here · B: kept in the other run")
    if lesion:
        parts.append(" · underlined number: shows the lesion")
    return Html("".join(text(one) for one in parts))


def _token_legend() -> Html:
    return Html(
        "Squares with a solid frame are selected tokens, dashed squares with a dot contextual ones; lines lead to what "
        "these absorbed (point at a token for its own). Hatched and dark: dropped, or merged "
        "into another token. Pale: cropped away, never encoded."
    )


_TERMS = {
    "slice read": "the vision encoder got it. Of the other slices the model knows nothing.",
    "anchor, γ": "each slice is compared with the last kept one, its anchor: the mean absolute difference of all "
    "pixels, on intensities in 0 to 1. Above γ it is kept.",
    "guard": "keeps a slice where one block of it differs from the anchor, though the whole slice does not.",
    "token": "what the language model reads of a small square of a slice.",
    "selected token": "reaches the language model unchanged.",
    "contextual token": "the mean of the tokens that were merged into it.",
    "importance": "the pruner's score of a token; by default the attention that it receives in the encoder. 1 "
    "is the mean of its slice.",
    "cumulative mass, τ": "the importance, added up from the highest token on. The default pruner selects tokens "
    "until the sum of their softmax reaches τ.",
}


def _terms() -> Html:
    rows = (element("tr", element("th", name, scope="row"), element("td", words)) for name, words in _TERMS.items())
    return element("details", element("summary", "Terms on this page"), element("table", *rows, class_="settings"))
