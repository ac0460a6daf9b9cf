# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The table, the plot and the page of a sweep."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.errors import OutputFolderError
from monai_medpruner.report.sweep_page import sweep_page

__all__ = ["sweep_table", "write_sweep"]

_SETTINGS = ("gamma", "tau", "temperature")


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one flat line per combination of settings.

    Args:
        rows: ``gamma``, ``tau``, ``temperature`` and ``metrics``, the result of
            :func:`~monai_medpruner.metrics.run_report`.

    Returns:
        Per line: the settings; the kept fractions ``slices``, ``tokens_per_kept_slice`` and ``overall``; ``items`` and
        ``failed``; and each metric over all items, in percent, with the limits of its 95 % interval (``…_low``,
        ``…_high``).
    """
    lines = []
    for row in rows:
        metrics = row["metrics"]
        line = {name: row[name] for name in _SETTINGS}
        line |= metrics["retention"] | {name: metrics[name] for name in ("items", "failed")}
        for name, cell in metrics["micro"].items():
            if isinstance(cell, Mapping):
                line |= {name: cell["value"], f"{name}_low": cell["low"], f"{name}_high": cell["high"]}
        lines.append(line)
    return lines


def write_sweep(rows: Sequence[Mapping[str, Any]], folder: str | Path) -> None:
    """Write ``sweep.csv``, ``sweep.png`` and ``sweep.html``.

    The plot shows the accuracy, or the first text metric if there are only open questions, with its interval against
    the share of kept tokens. Each γ and temperature has a line through its values of τ. The page has such a curve for
    each type of question, and the closed questions that flipped, with links to the reports of their studies.

    Args:
        rows: as in :func:`sweep_table`, and ``folder``, the name of the row's folder. If empty, as on ranks other than
            0, nothing is written.
        folder: existing folder to write to.

    Raises:
        OutputFolderError: the files cannot be written.
    """
    if not rows:
        return
    table = sweep_table(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(itertools.chain(*table))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    try:
        Path(folder, "sweep.csv").write_text(text.getvalue(), encoding="utf-8")
        _plot(table).savefig(Path(folder, "sweep.png"), dpi=150)
        atomic_write(Path(folder, "sweep.html"), sweep_page(rows, Path(folder)).encode())
    except OSError as error:
        raise OutputFolderError(f"cannot write to {folder}: {error.strerror}") from error


def _plot(table: Sequence[Mapping[str, Any]]) -> Figure:
    measure = _plotted_measure(table)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    curves: dict[tuple, list[Mapping[str, Any]]] = {}
    for line in table:
        if line.get(measure) is not None and line["overall"] is not None:
            curves.setdefault((line["gamma"], line["temperature"]), []).append(line)
    for (gamma, temperature), lines in curves.items():
        lines.sort(key=lambda line: line["overall"])
        values = [line[measure] for line in lines]
        spread = [
            [max(0.0, line[measure] - line[f"{measure}_low"]) for line in lines],
            [max(0.0, line[f"{measure}_high"] - line[measure]) for line in lines],
        ]
        kept = [100 * line["overall"] for line in lines]
        label = f"γ = {'none' if gamma is None else f'{gamma:g}'}, T = {temperature:g}"
        axes.errorbar(kept, values, spread, marker="o", capsize=3, label=label)
        for x, y, line in zip(kept, values, lines, strict=True):
            axes.annotate(f"τ {line['tau']:g}", (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set_xlabel("visual tokens kept, % of all slices' tokens")
    axes.set_ylabel(f"{measure}, % (95 % interval)")
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(fontsize=8)
    return figure


def _plotted_measure(table: Sequence[Mapping[str, Any]]) -> str:
    if any(line.get("accuracy") is not None for line in table):
        return "accuracy"
    ends = ("_low", "_high")
    names = [name for name in (table[0] if table else ()) if f"{name}_low" in table[0] and not name.endswith(ends)]
    return next((name for name in names if any(line[name] is not None for line in table)), "accuracy")
