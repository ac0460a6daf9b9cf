# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of a sweep: accuracy against retention, for all questions and for each type, and the items that flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_medpruner.report.html import Html, element
from monai_medpruner.report.judged_items import JudgedItem, item_title, judged_items, page_link
from monai_medpruner.report.page_shell import model_name, page_header, page_shell, tiles
from monai_medpruner.report.svg_charts import Point, Series, curve_chart, series_key

__all__ = ["setting_text", "sweep_page"]

_MOST_ITEMS = 300
_NOT_PLOTTED = ("accuracy_", "unparsed", "majority_baseline")


def sweep_page(rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Return the page.

    Args:
        rows: as in :func:`~monai_medpruner.report.write_sweep`, at least one.
        folder: of the sweep, which has a folder with predictions for each row that names one under "folder".
    """
    first = rows[0]["metrics"]
    settings = first.get("settings", {})
    kept = [
        row["metrics"]["retention"]["overall"] for row in rows if row["metrics"]["retention"]["overall"] is not None
    ]
    baseline = first.get("majority_baseline")
    facts = [
        ("Combinations", len(rows), "of γ, τ and temperature"),
        ("Questions", f"{first['items']:,}", f"about {first['volumes']:,} volumes, {first['failed']} failed"),
        ("Visual tokens kept", f"{min(kept):.1%} to {max(kept):.1%}" if kept else "unknown", "of all slices' tokens"),
        ("Most frequent letter", "–" if baseline is None else f"{baseline:.1f} %", "accuracy without a model"),
    ]
    model = settings.get("model", {})
    benchmark = settings.get("benchmark") or "unknown"
    name = f"Model {model_name(model)} ({model.get('model_type', 'unknown')}), benchmark {benchmark}"
    return page_shell(
        "Sweep: what pruning costs",
        page_header("What pruning costs", name, [model], tiles(facts)),
        element("main", _charts(rows), _table(rows), _flips(rows, folder)),
        element("footer", "Not for clinical use. Intervals are 95 % bootstrap intervals over questions."),
    )


def setting_text(row: Mapping[str, Any]) -> str:
    """Return the settings of a row in words."""
    gamma = "none" if row["gamma"] is None else f"{row['gamma']:g}"
    return f"γ {gamma}, τ {row['tau']:g}, T {row['temperature']:g}"


def _measures(cells: Mapping[str, Any]) -> list[str]:
    """Return accuracy, and the first measure of open questions: those that have values."""
    shown = [
        name
        for name, cell in cells.items()
        if isinstance(cell, Mapping) and cell["value"] is not None and not name.startswith(_NOT_PLOTTED)
    ]
    texts = [name for name in shown if name != "accuracy"][:1]
    return ["accuracy"] * ("accuracy" in shown) + texts


def _charts(rows: Sequence[Mapping[str, Any]]) -> Html:
    first = rows[0]["metrics"]
    levels: list[tuple[str, list[Mapping[str, Any]]]] = [("All questions", [row["metrics"]["micro"] for row in rows])]
    if len(first["types"]) > 1:
        levels += [(name, [row["metrics"]["types"][name] for row in rows]) for name in first["types"]]
    charts, key = [], None
    for title, cells in levels:
        for measure in _measures(cells[0]):
            series = _series(rows, cells, measure)
            if series:
                baseline = cells[0]["majority_baseline"] if measure == "accuracy" else None
                charts.append(curve_chart(title, f"{measure}, %", series, baseline))
                key = key or series_key(series)
    if not charts:
        charts = [element("p", "No combination has both a score and a share of kept tokens.", class_="note")]
    return element(
        "section",
        element("h2", "Scores against kept tokens"),
        key,
        element("div", *charts, class_="charts"),
        element(
            "p",
            "A line joins the values of τ. Bars are 95 % intervals. Dashed: always the most frequent letter.",
            class_="legend",
        ),
    )


def _series(rows: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]], measure: str) -> list[Series]:
    lines: dict[tuple[Any, Any], list[Point]] = {}
    for row, level in zip(rows, cells, strict=True):
        cell, kept = level.get(measure), row["metrics"]["retention"]["overall"]
        points = lines.setdefault((row["gamma"], row["temperature"]), [])
        if cell is None or cell["value"] is None or kept is None:
            continue
        value, low, high = cell["value"], cell["low"], cell["high"]
        title = f"{setting_text(row)}: {value:.1f} % ({low:.1f} to {high:.1f}) at {kept:.1%} of the tokens"
        points.append(Point(100 * kept, value, low, high, f"τ {row['tau']:g}", title))
    temperatures = {temperature for _, temperature in lines}
    found = []
    for number, ((gamma, temperature), points) in enumerate(lines.items()):
        name = f"γ {'none' if gamma is None else f'{gamma:g}'}"
        name += f", T {temperature:g}" if len(temperatures) > 1 else ""
        if points:
            found.append(Series(name, number, sorted(points, key=lambda point: point.kept)))
    return found


def _table(rows: Sequence[Mapping[str, Any]]) -> Html:
    names = ["slices", "tokens_per_kept_slice", "overall"]
    measures = _measures(rows[0]["metrics"]["micro"])
    titles = [
        "Settings",
        "Slices kept",
        "Tokens per kept slice",
        "Tokens kept",
        *(f"{one} (95 %)" for one in measures),
        "Failed",
    ]
    body = []
    for row in sorted(rows, key=lambda row: -(row["metrics"]["retention"]["overall"] or 0)):
        metrics = row["metrics"]
        cells = [_percent(metrics["retention"][name]) for name in names]
        for name in measures:
            cell = metrics["micro"][name]
            cells.append(
                "–" if cell["value"] is None else f"{cell['value']:.1f} ({cell['low']:.1f} to {cell['high']:.1f})"
            )
        cells.append(str(metrics["failed"]))
        body.append(
            element("tr", element("th", setting_text(row), scope="row"), *(element("td", one) for one in cells))
        )
    head = element("thead", element("tr", *(element("th", one, scope="col") for one in titles)))
    table = element("table", head, element("tbody", *body), class_="numbers")
    return element(
        "section",
        element("h2", "Numbers"),
        element("div", table, class_="scroll"),
        element("p", "All measures, under every rule for reading an answer, are in sweep.csv.", class_="legend"),
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _flips(rows: Sequence[Mapping[str, Any]], folder: Path) -> Html | None:
    """The closed questions that some combinations answer right and others wrong."""
    ordered = sorted(
        (row for row in rows if "folder" in row), key=lambda row: -(row["metrics"]["retention"]["overall"] or 0)
    )
    if len(ordered) < 2:
        return None
    runs = [judged_items(folder / row["folder"] / "predictions.jsonl") for row in ordered]
    flipped = [name for name in runs[0] if len({run[name].correct for run in runs}) > 1]
    # first those that most combinations lose
    flipped.sort(key=lambda name: sum(run[name].correct for run in runs))
    shown = flipped[:_MOST_ITEMS]
    head = [element("th", one, scope="col") for one in ("Question", "Type", "Right answer")]
    head += [element("th", number, scope="col", title=setting_text(row)) for number, row in enumerate(ordered, 1)]
    body = [_flipped(name, runs, folder) for name in shown]
    key = [element("li", f"{setting_text(row)}: {_percent(row['metrics']['retention']['overall'])}") for row in ordered]
    closed = len(runs[0])
    note = f"{len(flipped):,} of {closed:,} closed questions"
    note += f"; the first {_MOST_ITEMS} are listed" if len(flipped) > _MOST_ITEMS else ""
    table = element("table", element("thead", element("tr", *head)), element("tbody", *body), class_="flips")
    return element(
        "section",
        element("h2", "Questions that flipped"),
        element(
            "p",
            f"Right (●) in some combinations and wrong (○) in others: {note}. A mark leads to the report of the study "
            "in that combination, where there is one.",
        ),
        element("p", "Columns, by the share of kept tokens:", class_="legend"),
        element("ol", *key, class_="legend columns"),
        element("div", table, class_="scroll") if body else None,
    )


def _flipped(name: str, runs: Sequence[Mapping[str, JudgedItem]], folder: Path) -> Html:
    item = runs[0][name]
    prediction = item.prediction
    letter = str(prediction.reference_choice)
    cells = [
        element(
            "td", page_link(run[name], "●" if run[name].correct else "○", folder), title=run[name].prediction.answer
        )
        for run in runs
    ]
    return element(
        "tr",
        element("th", item_title(item), scope="row"),
        element("td", prediction.type),
        element("td", element("bdi", f"{letter}. {prediction.choices.get(letter, '')}")),
        *cells,
    )
