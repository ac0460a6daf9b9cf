# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of two runs on the same items: differences with intervals, and the items that flipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.errors import OutputFolderError
from monai_medpruner.metrics import read_predictions
from monai_medpruner.report.html import Html, element
from monai_medpruner.report.judged_items import JudgedItem, item_title, judged_items, page_link
from monai_medpruner.report.page_shell import model_name, page_header, page_shell, tiles
from monai_medpruner.report.report_data import flat_settings
from monai_medpruner.report.svg_charts import difference_chart, signed

__all__ = ["write_comparison"]

_MOST_ITEMS = 300
_HIDDEN = ("accuracy_", "unparsed")


def write_comparison(result: Mapping[str, Any], first: str | Path, second: str | Path, page: str | Path) -> None:
    """Write the page of a comparison: one HTML file that asks no network.

    Questions that flipped lead to the reports of their studies, where these were written (``reports/`` beside the
    predictions); the links hold as long as the page and the runs are not moved apart.

    Args:
        result: of :func:`~monai_medpruner.metrics.compare`.
        first: path of the JSON lines of one run.
        second: path of the JSON lines of the other run.
        page: file to write.

    Raises:
        OutputFolderError: the file cannot be written.
        SettingsError: the lines cannot be read.
    """
    target = Path(page)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFolderError(f"cannot write to {target.parent}: {error.strerror}") from error
    runs = [_Run(path) for path in (first, second)]
    body = element(
        "main", _differences(result), _numbers(result), _settings(runs), *_flips(first, second, target.parent)
    )
    header = page_header(
        "Two runs on the same questions", _names(runs), [one.model for one in runs], _tiles(result, runs)
    )
    footer = element(
        "footer", "Not for clinical use. A: the first run. B: the second. Intervals are paired bootstraps."
    )
    atomic_write(target, page_shell("Two runs on the same questions", header, body, footer).encode())


class _Run:
    """What the page says about a run as a whole."""

    def __init__(self, path: str | Path) -> None:
        lines = read_predictions(path)
        self.name = Path(path).parent.name or str(path)
        answered = [line for line in lines if line.get("status", "ok") == "ok"]
        self.settings: Mapping[str, Any] = (answered or lines)[0].get("settings") or {}
        self.model: Mapping[str, Any] = self.settings.get("model") or {}
        volumes = {line["volume_id"]: line["tokens"] for line in answered if "volume_id" in line and "tokens" in line}
        unpruned = sum(one["unpruned"] for one in volumes.values())
        self.kept = sum(one["kept"] for one in volumes.values()) / unpruned if unpruned else None


def _names(runs: Sequence[_Run]) -> str:
    return "; ".join(f"{side}: {one.name}, model {model_name(one.model)}" for side, one in zip("AB", runs, strict=True))


def _tiles(result: Mapping[str, Any], runs: Sequence[_Run]) -> Html:
    kept = [("–" if one.kept is None else f"{one.kept:.1%}") for one in runs]
    failed = [result[side]["failed"] for side in ("first", "second")]
    rows = [
        ("Questions", f"{result['first']['items']:,}", f"failed: A {failed[0]}, B {failed[1]}"),
        ("Visual tokens kept", f"{kept[0]} and {kept[1]}", "A and B, of all slices' tokens"),
    ]
    cell, test = result["micro"]["accuracy"], result["mcnemar"][result["first"]["headline_rule"]]
    if cell["difference"] is not None:
        rows.append(
            ("Accuracy", f"{cell['first']:.1f} and {cell['second']:.1f} %", f"B − A: {_difference(cell)} points")
        )
        only = f"right in A alone {test['only_first']}, in B alone {test['only_second']}"
        rows.append(("McNemar's test", f"p = {test['p_value']:.2g}", only))
    return tiles(rows)


def _difference(cell: Mapping[str, Any]) -> str:
    difference, low, high = (signed(cell[name]) for name in ("difference", "low", "high"))
    return f"{difference} ({low} to {high})"


def _cells(result: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Level, measure and cell, of all that have a value."""
    levels = [("All questions", result["micro"])]
    levels += list(result["types"].items()) if len(result["types"]) > 1 else []
    for level, cells in levels:
        for measure, cell in cells.items():
            if cell["difference"] is not None and not measure.startswith(_HIDDEN):
                yield level, measure, cell


def _differences(result: Mapping[str, Any]) -> Html:
    cells = list(_cells(result))
    measures = dict.fromkeys(measure for _, measure, _ in cells)
    parts: list[Html] = []
    for measure in measures:
        rows = [
            (level, cell["difference"], cell["low"], cell["high"]) for level, name, cell in cells if name == measure
        ]
        parts += [
            element("p", element("strong", measure), class_="bar_title"),
            difference_chart(rows, "B − A, percentage points"),
        ]
    return element(
        "section",
        element("h2", "Differences"),
        *parts,
        element("p", "Bars are 95 % intervals. To the right of 0 the second run is better.", class_="legend"),
    )


def _numbers(result: Mapping[str, Any]) -> Html:
    titles = ("Questions", "Measure", "A", "B", "B − A (95 %)")
    rows = [
        element(
            "tr",
            element("th", level, scope="row"),
            *(
                element("td", one)
                for one in (measure, f"{cell['first']:.1f}", f"{cell['second']:.1f}", _difference(cell))
            ),
        )
        for level, measure, cell in _cells(result)
    ]
    head = element("thead", element("tr", *(element("th", one, scope="col") for one in titles)))
    table = element("table", head, element("tbody", *rows), class_="numbers")
    return element("section", element("h2", "Numbers"), element("div", table, class_="scroll"))


def _settings(runs: Sequence[_Run]) -> Html:
    sides = [dict(flat_settings(one.settings, deidentified=False)) for one in runs]
    names = [one for one in dict.fromkeys((*sides[0], *sides[1])) if sides[0].get(one) != sides[1].get(one)]
    rows = [
        element("tr", element("th", name, scope="row"), *(element("td", side.get(name, "–")) for side in sides))
        for name in names
    ]
    head = element("thead", element("tr", *(element("th", one, scope="col") for one in ("", "A", "B"))))
    table = element("table", head, element("tbody", *rows), class_="settings compared")
    return element(
        "section",
        element("h2", "Settings that differ"),
        table if rows else element("p", "None: the settings are the same."),
    )


def _flips(first: str | Path, second: str | Path, start: Path) -> Iterator[Html]:
    """The closed questions that one run alone answers right."""
    runs = judged_items(first), judged_items(second)
    lost = [name for name, item in runs[0].items() if item.correct and not runs[1][name].correct]
    won = [name for name, item in runs[0].items() if runs[1][name].correct and not item.correct]
    yield _listed("Right in A, wrong in B", lost, runs, start)
    yield _listed("Wrong in A, right in B", won, runs, start)


def _listed(title: str, names: Sequence[str], runs: Sequence[Mapping[str, JudgedItem]], start: Path) -> Html:
    titles = ("Question", "Type", "Right answer", "A", "B", "Reports")
    rows = [_flipped(runs[0][name], runs[1][name], start) for name in names[:_MOST_ITEMS]]
    head = element("thead", element("tr", *(element("th", one, scope="col") for one in titles)))
    table = element("table", head, element("tbody", *rows), class_="flips")
    note = f"{len(names):,} of {len(runs[0]):,} closed questions"
    note += f"; the first {_MOST_ITEMS} are listed." if len(names) > _MOST_ITEMS else "."
    note += " Right answers are bold. A letter without a link: medpruner report has not written that page." * bool(rows)
    return element(
        "section", element("h2", title), element("p", note), element("div", table, class_="scroll") if rows else None
    )


def _flipped(first: JudgedItem, second: JudgedItem, start: Path) -> Html:
    prediction = first.prediction
    letter = str(prediction.reference_choice)
    cells = [prediction.type, element("bdi", f"{letter}. {prediction.choices.get(letter, '')}")]
    cells += [_answer(one) for one in (first, second)]
    return element(
        "tr",
        element("th", item_title(first), scope="row"),
        *(element("td", one) for one in cells),
        element("td", page_link(first, "A", start), " ", page_link(second, "B", start)),
    )


def _answer(item: JudgedItem) -> Html:
    if item.prediction.failed:
        return element("em", "failed")
    return element("bdi", item.prediction.answer or "(empty)", class_="answer" if item.correct else None)
