# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The page of evidence from predictions: tables in Markdown, plots in PNG."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from monai_medpruner.metrics import HEADLINE_RULE, answer_is_correct

BINS = ((20, 22.5), (22.5, 25), (25, 27.5), (27.5, 30.1))
LESION_TYPES = ("Organ", "Abnormality", "Location")
KINDS = ("unpruned", "MedPruner", "IAF alone", "DINS alone", "uniform slices", "random tokens", "average pooling")


def write_page(
    work: Path, families: Sequence[str], data: Path, recall: Mapping[str, Mapping[str, Any]], out: Path
) -> None:
    """Write ``evidence.md`` and ``evidence_<family>.png``."""
    out.mkdir(parents=True, exist_ok=True)
    diameters = _diameters(data)
    count = len(diameters)
    text = [
        "# What pruning costs in answers",
        "",
        "Small models of the real architectures, trained on synthetic CT phantoms, asked about phantoms that they were "
        "not trained on. **Everything on this page is synthetic.** It shows how pruning acts on models that do answer; "
        "it says nothing of the answers of large models about patients.",
        "",
        f"Made by `python benchmarks/evidence.py --count {count}` on phantoms of a fresh seed; closed questions; "
        f"machine: {platform.machine()}, CPU. Accuracy in percent by the {HEADLINE_RULE} rule with its 95 % bootstrap "
        "interval; "
        "retention is the share of the whole volume's visual tokens that reaches the language model.",
        "",
        "All ways to prune share one run of the encoder. MedPruner is the slice filter (IAF, γ) with the nucleus of "
        "tokens (DINS, τ; temperature 1 where none is named). *Uniform slices* keeps that many evenly spaced ones; "
        "*random tokens* that share of each slice's tokens, the rest merged as MedPruner merges it; *average pooling* "
        "the mean of each cell. *Blind* is one black slice, *shuffled* the volume of another phantom.",
    ]
    for family in families:
        text += _family(work / family, family, diameters, recall[family], out)
    (out / "evidence.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def _family(
    folder: Path, family: str, diameters: Mapping[str, float], recall: Mapping[str, Any], out: Path
) -> list[str]:
    metrics = {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/metrics.json"))}
    # in the order of accuracy's x-axis
    order = sorted(metrics, key=lambda name: (_kind(name), -metrics[name]["retention"]["overall"]))
    lines = ["", f"## {family}", "", f"![Accuracy against retention](evidence_{family}.png)", ""]
    types = list(metrics["unpruned"]["types"])
    items, baseline = metrics["unpruned"]["items"], metrics["unpruned"]["majority_baseline"]
    lines += [f"{items} questions. Always the most frequent letter: {baseline:.1f} %.", ""]
    lines += _table(["", "kept, %", "of slices, %", "accuracy", *types])
    for name in order:
        one = metrics[name]
        cells = [name, *(f"{100 * one['retention'][part]:.1f}" for part in ("overall", "slices"))]
        cells += [_with_interval(one["micro"]["accuracy"])]
        cells += [f"{one['types'][kind]['accuracy']['value']:.1f}" for kind in types]
        lines.append(_row(cells))
    lines += ["", "Lesion questions (organ, abnormality, location where there is a lesion) by its diameter:", ""]
    lines += _table(["", *(f"{low:g} to {min(high, 30):g} mm" for low, high in BINS), "all"])
    for name in order:
        cells = [_by_size(folder / name, diameters, low, high) for low, high in (*BINS, (0.1, 99))]
        lines.append(_row([name, *cells]))
    lines += ["", "What is left of the lesions, in percent, and where the attention goes (1 is uniform):", ""]
    lines += _table(
        ["", "lesions seen", "lesion slices", "lesion tokens", "of kept slices", "attention: lesion", "attention: air"]
    )
    for name in order:
        if name in recall:
            one = recall[name]
            shares = [f"{100 * one[part]:.1f}" for part in ("lesions", "slices", "tokens", "tokens_of_kept_slices")]
            mass = [
                f"{one[part]:.2f}" if part in one else "" for part in ("lesion_importance", "background_importance")
            ]
            lines.append(_row([name, *shares, *mass]))
    _plot(metrics, out / f"evidence_{family}.png", family)
    return lines


def _diameters(data: Path) -> dict[str, float]:
    """Name of each volume's file -> diameter of its lesion in mm, 0 for none."""
    truths = map(json.loads, (data / "phantoms.jsonl").read_text(encoding="utf-8").splitlines())
    return {Path(one["image"]).name: max((le["diameter_mm"] for le in one["lesions"]), default=0.0) for one in truths}


def _by_size(folder: Path, diameters: Mapping[str, float], low: float, high: float) -> str:
    right = []
    for line in map(json.loads, (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()):
        if line["type"] in LESION_TYPES and low <= diameters[Path(line["image"]).name] < high:
            answer = line["prediction"] if line["status"] == "ok" else ""
            right.append(answer_is_correct(answer, line["answer_choice"], line["choices"] or {}, HEADLINE_RULE))
    if not right:
        return ""
    drawn = np.random.default_rng(0).choice(right, (1000, len(right))).mean(1)
    lower, upper = np.percentile(drawn, [2.5, 97.5])
    return (
        _with_interval({"value": 100 * np.mean(right), "low": 100 * lower, "high": 100 * upper}) + f" of {len(right)}"
    )


def _with_interval(cell: Mapping[str, float]) -> str:
    return f"{cell['value']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]"


def _table(names: Sequence[str]) -> list[str]:
    return [_row(names), _row(["---"] * len(names))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _kind(name: str) -> int:
    return next((place for place, kind in enumerate(KINDS) if name.startswith(kind)), len(KINDS))


def _plot(metrics: Mapping[str, Any], path: Path, family: str) -> None:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for kind in KINDS:
        found = [one for name, one in metrics.items() if name.startswith(kind)]
        found.sort(key=lambda one: one["retention"]["overall"])
        cells = [one["micro"]["accuracy"] for one in found]
        values = np.array([cell["value"] for cell in cells])
        spread = [values - [cell["low"] for cell in cells], np.array([cell["high"] for cell in cells]) - values]
        kept = [100 * one["retention"]["overall"] for one in found]
        axes.errorbar(kept, values, np.maximum(spread, 0), marker="o", capsize=3, label=kind)
    baseline = metrics["unpruned"]["majority_baseline"]
    axes.axhline(baseline, color="grey", linestyle=":", label="most frequent letter")
    axes.set_xscale("log")
    axes.set_xlabel("visual tokens kept, % of all slices' tokens")
    axes.set_ylabel("accuracy, % (95 % interval)")
    axes.set_title(f"Small {family} trained on phantoms: synthetic", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
