# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of evidence from predictions: tables in Markdown, plots in PNG."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence_attention import attention_lines
from evidence_recall import survival
from matplotlib.figure import Figure

from monai_medpruner.metrics import HEADLINE_RULE, answer_is_correct, compare_command

BINS = ((10, 15), (15, 20), (20, 25), (25, 30.1))
_ANY_LESION = (0.1, 99.0)
_NO_LESION = (0.0, 0.1)
LESION_TYPES = ("Organ", "Abnormality", "Location")
KINDS = ("unpruned", "MedPruner", "IAF alone", "DINS alone", "uniform slices", "random tokens", "average pooling")
OVERVIEW_RIVALS = ("random tokens", "uniform slices", "average pooling")


def write_page(work: Path, families: Sequence[str], phantoms: Path, own: str, out: Path) -> None:
    """Write ``evidence.md`` and, for each family, its plot and the picture of its attention.

    Args:
        work: folder of the runs, one a family.
        families: in the order of the page.
        phantoms: folder of the phantoms.
        own: name of the variant that has the bundle's settings.
        out: where to write.
    """
    out.mkdir(parents=True, exist_ok=True)
    diameters = _diameters(phantoms)
    text = [
        "# What pruning costs in answers",
        "",
        "Small models of the real architectures, trained on synthetic CT phantoms, asked about phantoms that they were "
        "not trained on. **Everything on this page is synthetic.** It shows how pruning acts on models that do answer; "
        "it says nothing of the answers of large models about patients.",
        "",
        f"Made by `python benchmarks/evidence.py --count {len(diameters)}` on phantoms of a fresh seed; closed "
        f"questions; machine: {platform.machine()}, CPU. Accuracy in percent by the {HEADLINE_RULE} rule with its "
        "95 % bootstrap interval; retention is the share of the whole volume's visual tokens that reach the language "
        "model.",
        "",
        "All ways to prune share one run of the encoder. MedPruner is the slice filter (IAF, γ) with the nucleus of "
        "tokens (DINS, τ; temperature 1 where none is named). *Uniform slices* keeps that many evenly spaced ones; "
        "*random tokens* that share of each slice's tokens, the rest merged as MedPruner merges it; *average pooling* "
        "the mean of each cell. *Blind* is one black slice, *shuffled* the volume of another phantom. The bundle's "
        "own settings stand in bold. *Of lesion questions*: organ, abnormality and location where there is a lesion; "
        "*healthy said to be*: abnormality where there is none. Ways with fewer questions were asked about the "
        "first third of the phantoms.",
    ]
    text += _overview(work, families, own)
    for family in families:
        text += _family(work / family, phantoms, diameters, own, out)
        text += _attention(work / family, phantoms, out)
    (out / "evidence.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def _family(folder: Path, phantoms: Path, diameters: Mapping[str, float], own: str, out: Path) -> list[str]:
    family, metrics = folder.name, _metrics(folder)
    # in the order of accuracy's x-axis
    order = sorted(metrics, key=lambda name: (_kind(name), -metrics[name]["retention"]["overall"]))
    lines = ["", f"## {family}", "", f"![Accuracy against retention](evidence_{family}.png)", ""]
    lines += _accuracy(folder, metrics, order, own, diameters)
    lines += _sizes(folder, [name for name in order if _of_all(metrics, name)], own, diameters)
    lines += _pairs(folder, metrics, own)
    lines += _recall(folder, phantoms, order, own)
    _plot(metrics, out / f"evidence_{family}.png", family)
    return lines


def _metrics(folder: Path) -> dict[str, Any]:
    """Variant -> its metrics."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/metrics.json"))}


def _overview(work: Path, families: Iterable[str], own: str) -> list[str]:
    """The bundle's settings beside unpruned and the rivals that keep as many tokens or the next larger number."""
    lines = [
        "",
        "## At a glance",
        "",
        "Of each rival, the way that keeps as many tokens or the next larger number:",
        "",
    ]
    lines += _table(["", "unpruned", f"**{own}**", *OVERVIEW_RIVALS])
    for family in families:
        metrics = _metrics(work / family)
        names = ["unpruned", own, *(_rival(metrics, kind, own) for kind in OVERVIEW_RIVALS)]
        cells = [f"{_with_interval(metrics[name]['micro']['accuracy'])} at {_kept(metrics[name])} %" for name in names]
        lines.append(_row([family, *cells]))
    return lines


def _rival(metrics: Mapping[str, Any], kind: str, own: str) -> str:
    asked = [name for name in metrics if name.startswith(kind) and _of_all(metrics, name)]
    least = metrics[own]["retention"]["overall"]
    asked.sort(key=lambda name: metrics[name]["retention"]["overall"])
    return next((name for name in asked if metrics[name]["retention"]["overall"] >= least), asked[-1])


def _of_all(metrics: Mapping[str, Any], name: str) -> bool:
    """Whether a way was asked about every phantom."""
    return metrics[name]["items"] == metrics["unpruned"]["items"]


def _kept(metrics: Mapping[str, Any]) -> str:
    return f"{100 * metrics['retention']['overall']:.1f}"


def _accuracy(
    folder: Path, metrics: Mapping[str, Any], order: Sequence[str], own: str, diameters: Mapping[str, float]
) -> list[str]:
    types = list(metrics["unpruned"]["types"])
    items, baseline = metrics["unpruned"]["items"], metrics["unpruned"]["majority_baseline"]
    lines = [f"Always the most frequent letter: {baseline:.1f} % of {items} questions.", ""]
    lines += _table(
        ["", "questions", "kept, %", "of slices, %", "accuracy", "of lesion questions", "healthy said to be", *types]
    )
    for name in order:
        one = metrics[name]
        cells = [str(one["items"]), *(f"{100 * one['retention'][part]:.1f}" for part in ("overall", "slices"))]
        cells += [_with_interval(one["micro"]["accuracy"]), _by_size(folder / name, diameters, *_ANY_LESION)]
        cells += [_by_size(folder / name, diameters, *_NO_LESION, ("Abnormality",))]
        cells += [f"{one['types'][kind]['accuracy']['value']:.1f}" for kind in types]
        lines.append(_row([_named(name, own), *cells]))
    return lines


def _pairs(folder: Path, metrics: Mapping[str, Any], own: str) -> list[str]:
    """The bundle's settings against others on the same questions, pair by pair."""
    lines = ["", "The bundle's settings less another way, in points of accuracy, question by question:", ""]
    lines += _table(["less", "kept, %", "difference, 95 % interval", "McNemar's p"])
    rivals = [name for name in metrics if name.startswith(("random", "uniform", "average"))]
    for other in ("unpruned", *(name for name in rivals if _of_all(metrics, name))):
        found = compare_command(
            str(folder / other / "predictions.jsonl"), str(folder / own / "predictions.jsonl"), "meduni-vqa"
        )
        cell, test = found["micro"]["accuracy"], found["mcnemar"][HEADLINE_RULE]
        difference = f"{cell['difference']:+.1f} [{cell['low']:+.1f}, {cell['high']:+.1f}]"
        lines.append(_row([other, _kept(metrics[other]), difference, f"{test['p_value']:.2g}"]))
    return lines


def _sizes(folder: Path, names: Sequence[str], own: str, diameters: Mapping[str, float]) -> list[str]:
    """Lesion questions by size."""
    lines = [
        "",
        "Lesion questions (organ, abnormality, location where there is a lesion) by the lesion's diameter:",
        "",
    ]
    lines += _table(["", *(f"{low:g} to {min(high, 30):g} mm" for low, high in BINS)])
    for name in names:
        lines.append(_row([_named(name, own), *(_by_size(folder / name, diameters, low, high) for low, high in BINS)]))
    return lines


def _attention(folder: Path, phantoms: Path, out: Path) -> list[str]:
    lines = ["", "Where the encoder's attention goes, over all slices, and how it is drawn over six of them:", ""]
    scored = next(path.parent for path in sorted(folder.glob("DINS alone*/metrics.json")))
    picture = f"evidence_{folder.name}_attention.png"
    return [*lines, *attention_lines(scored, phantoms, out / picture), "", f"![Attention]({picture})"]


def _recall(folder: Path, phantoms: Path, order: Sequence[str], own: str) -> list[str]:
    lines = ["", "What is left of the lesions, in percent, and the mean attention on their tokens and on those of air "]
    lines[1] += "(1 is uniform):"
    recall = survival(folder, phantoms)
    names = ["lesions seen", "lesion slices", "lesion tokens", "of kept slices", "attention: lesion", "attention: air"]
    lines += ["", *_table(["", *names])]
    for name in order:
        if name in recall:
            one = recall[name]
            shares = [f"{100 * one[part]:.1f}" for part in ("lesions", "slices", "tokens", "tokens_of_kept_slices")]
            mass = [
                f"{one[part]:.2f}" if part in one else "" for part in ("lesion_importance", "background_importance")
            ]
            lines.append(_row([_named(name, own), *shares, *mass]))
    return lines


def _named(name: str, own: str) -> str:
    return f"**{name}**" if name == own else name


def _diameters(data: Path) -> dict[str, float]:
    """Name of each volume's file -> diameter of its lesion in mm, 0 for none."""
    truths = map(json.loads, (data / "phantoms.jsonl").read_text(encoding="utf-8").splitlines())
    return {Path(one["image"]).name: max((le["diameter_mm"] for le in one["lesions"]), default=0.0) for one in truths}


def _by_size(
    folder: Path, diameters: Mapping[str, float], low: float, high: float, types: Sequence[str] = LESION_TYPES
) -> str:
    right = []
    for line in map(json.loads, (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()):
        if line["type"] in types and low <= diameters[Path(line["image"]).name] < high:
            answer = line["answer"] if line["status"] == "ok" else ""
            right.append(answer_is_correct(answer, line["reference_choice"], line["choices"] or {}, HEADLINE_RULE))
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
    axes.axhline(baseline, color="gray", linestyle=":", label="most frequent letter")
    axes.set_xscale("log")
    axes.set_xlabel("visual tokens kept, % of all slices' tokens")
    axes.set_ylabel("accuracy, % (95 % interval)")
    axes.set_title(f"Small {family} trained on phantoms: synthetic", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
