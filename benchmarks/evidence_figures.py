# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The figures of ``docs/evidence.md``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from slices_page import EVEN, FILTER, lesions

RULES = {EVEN: "evenly spaced", "anchor, max_gap_mm 10": "filter, at most 10 mm apart", FILTER: "filter"}
LINES = {
    "body, nucleus": "attention, in the body",
    "nucleus": "attention",
    "body, attention and coverage": "attention and coverage, in the body",
    "body, random": "random, in the body",
    "body, rare tokens": "rare tokens, in the body",
    "divprune": "DivPrune",
    "hiprune": "HiPrune",
    "random_tokens": "random",
}


def draw_slices(found: dict[str, Any], file: Path) -> None:
    """Lesions met over the number of kept slices, one panel a spacing."""
    panels = []
    for one in found["sets"]:
        if one["kind"] == "phantom" and one["window"] == "soft_tissue":
            panels += [(one, step) for step in dict.fromkeys(row["step"] for row in one["rows"])]
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axis, (one, step) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        rows = [row for row in one["rows"] if row["step"] == step]
        for rule, label in RULES.items():
            own = sorted((row for row in rows if row["rule"] == rule), key=lambda row: row["kept"])
            axis.plot([row["kept"] for row in own], [lesions(row) for row in own], marker="o", label=label)
        axis.set_title(f"{rows[0]['spacing_mm']:g} mm, {rows[0]['slices']} slices", fontsize=9)
        axis.set_xlabel("slices kept")
        axis.set_xscale("log", base=2)
        axis.set_xticks([6, 12, 24, 48, 96][: 5 if rows[0]["slices"] > 96 else 4])
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("lesions met, %")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(file, dpi=90)


def draw_organs(found: dict[str, Any], file: Path) -> None:
    """Organ tokens kept over the share of tokens, one panel a data set."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, (name, one) in zip(
        figure.subplots(1, len(found["sets"]), squeeze=False)[0], found["sets"].items(), strict=True
    ):
        for selector_, label in LINES.items():
            own = [row for row in one["rows"] if row["selector"] == selector_]
            middle = [100 * row["organ_tokens"][0] for row in own]
            low, high = ([100 * row["organ_tokens"][end] for row in own] for end in (1, 2))
            places = [100 * row["tokens"] for row in own]
            (line,) = axis.plot(places, middle, marker="o", markersize=3, label=label)
            axis.fill_between(places, low, high, color=line.get_color(), alpha=0.12)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("tokens kept, %")
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("organ tokens kept, %")
    figure.legend(*figure.axes[-1].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4)
    figure.savefig(file, dpi=90)
