# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The evidence page, written from predictions: tables in Markdown, plots in PNG."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence_attention import attention_lines
from evidence_recall import lesion_recall
from matplotlib.figure import Figure

from monai_medpruner.metrics import HEADLINE_RULE, answer_is_correct, compare_command

BINS = ((10, 15), (15, 20), (20, 25), (25, 30.1))
_ANY_LESION = (0.1, 99.0)
_NO_LESION = (0.0, 0.1)
LESION_TYPES = ("Organ", "Abnormality", "Location")
KINDS = ("unpruned", "MedPruner", "IAF alone", "DINS alone", "uniform slices", "random tokens", "average pooling")
OVERVIEW_BASELINES = ("random tokens", "uniform slices", "average pooling")


def write_page(work: Path, families: Sequence[str], phantoms: Path, own: str, out: Path) -> None:
    """Write ``evidence_phantoms.md`` and, for each family, its plot and its attention picture.

    Args:
        work: folder of the runs, with one folder per family.
        families: families in the order of the page.
        phantoms: folder of the phantoms.
        own: name of the variant with the settings of the bundle.
        out: output folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    diameters = _diameters(phantoms)
    text = [
        "# Effect of pruning on answers",
        "",
        "Small models with the original architectures, trained on synthetic CT phantoms and evaluated on other "
        "phantoms. **Everything on this page is synthetic.** It shows how pruning affects models that can answer the "
        "questions; it says nothing about the answers of large models about patients.",
        "",
        f"Made by `python benchmarks/evidence.py --count {len(diameters)}` on phantoms of a new seed; closed "
        f"questions; machine: {platform.machine()}, CPU. Accuracy is in percent under the {HEADLINE_RULE} rule, with "
        "95 % bootstrap intervals. Retention is the fraction of the visual tokens of the full volume that reach the "
        "language model.",
        "",
        "All configurations share one pass of the encoder. MedPruner combines the slice filter (IAF, γ) with nucleus "
        "selection of tokens (DINS, τ; temperature 1 unless stated). The baselines are *uniform slices*, the given "
        "number of evenly spaced slices; *random tokens*, the given fraction of the tokens of each slice, with the "
        "other tokens merged as in MedPruner; *average pooling*, the mean of each cell; *blind*, one black slice; and "
        "*shuffled*, the volume of another phantom. The settings of the bundle are in bold. *Lesion questions* are "
        "those about organ, abnormality and location of phantoms with a lesion. *Specificity* is the accuracy of the "
        "abnormality question on phantoms without a lesion. Configurations with fewer questions were evaluated on the "
        "first third of the phantoms.",
    ]
    recall = {family: lesion_recall(work / family, phantoms) for family in families}
    text += _overview(work, families, own)
    text += _slice_selection(_metrics(work / families[0]), recall[families[0]])
    for family in families:
        text += _family(work / family, recall[family], diameters, own, out)
        text += _attention(work / family, phantoms, out)
    (out / "evidence_phantoms.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def _family(
    folder: Path, recall: Mapping[str, Mapping[str, float]], diameters: Mapping[str, float], own: str, out: Path
) -> list[str]:
    family, metrics = folder.name, _metrics(folder)
    # in the order of the x-axis of the plot
    order = sorted(metrics, key=lambda name: (_kind(name), -metrics[name]["retention"]["overall"]))
    lines = ["", f"## {family}", "", f"![Accuracy against retention](evidence_{family}.png)", ""]
    lines += _accuracy(folder, metrics, order, own, diameters)
    lines += _sizes(folder, [name for name in order if _complete(metrics, name)], own, diameters)
    lines += _pairs(folder, metrics, own)
    lines += _recall(recall, order, own)
    _plot(metrics, out / f"evidence_{family}.png", family)
    return lines


def _metrics(folder: Path) -> dict[str, Any]:
    """Return variant -> metrics."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/metrics.json"))}


def _overview(work: Path, families: Iterable[str], own: str) -> list[str]:
    """Compare the settings of the bundle with the unpruned model and with baselines of similar retention."""
    lines = [
        "",
        "## At a glance",
        "",
        "For each baseline, the configuration with the same or the next higher retention (accuracy at tokens kept):",
        "",
    ]
    lines += _table(["", "unpruned", f"**{own}**", *OVERVIEW_BASELINES])
    for family in families:
        metrics = _metrics(work / family)
        names = ["unpruned", own, *(_baseline(metrics, kind, own) for kind in OVERVIEW_BASELINES)]
        cells = [f"{_with_interval(metrics[name]['micro']['accuracy'])} at {_kept(metrics[name])} %" for name in names]
        lines.append(_row([family, *cells]))
    return lines


def _slice_selection(metrics: Mapping[str, Any], recall: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Compare the slice filter with evenly spaced slices; slices do not depend on the model, so one family suffices."""
    uniform, iaf = "uniform slices, 12", "IAF alone, γ 0.04"
    seen = {name: f"{100 * recall[name]['lesions']:.1f} %" for name in (uniform, iaf)}
    kept = {name: f"{100 * metrics[name]['retention']['slices']:.1f} %" for name in (uniform, iaf)}
    return [
        "",
        "## Slice selection",
        "",
        "**At an equal number of slices, evenly spaced slices see more lesions than the slice filter.** In the tables "
        f"below, 12 evenly spaced slices ({kept[uniform]} of all slices) see {seen[uniform]} of the lesions; the "
        f"filter (IAF alone, γ 0.04) sees {seen[iaf]} with {kept[iaf]} of the slices. The comparison of MedPruner with "
        "3 or 5 uniform slices at a similar number of tokens is no evidence for the filter: at γ 0.01 the filter drops "
        "very few slices, and the tokens are saved within slices.",
    ]


def _baseline(metrics: Mapping[str, Any], kind: str, own: str) -> str:
    names = [name for name in metrics if name.startswith(kind) and _complete(metrics, name)]
    """Return the baseline of a kind with the lowest retention that is not below that of the bundle's settings."""
    minimum = metrics[own]["retention"]["overall"]
    names.sort(key=lambda name: metrics[name]["retention"]["overall"])
    return next((name for name in names if metrics[name]["retention"]["overall"] >= minimum), names[-1])


def _complete(metrics: Mapping[str, Any], name: str) -> bool:
    """Whether a configuration was evaluated on all phantoms."""
    return metrics[name]["items"] == metrics["unpruned"]["items"]


def _kept(metrics: Mapping[str, Any]) -> str:
    return f"{100 * metrics['retention']['overall']:.1f}"


def _accuracy(
    folder: Path, metrics: Mapping[str, Any], order: Sequence[str], own: str, diameters: Mapping[str, float]
) -> list[str]:
    types = list(metrics["unpruned"]["types"])
    items, baseline = metrics["unpruned"]["items"], metrics["unpruned"]["majority_baseline"]
    lines = [f"Majority baseline (always the most frequent letter): {baseline:.1f} % of {items} questions.", ""]
    lines += _table(
        ["", "questions", "tokens kept, %", "slices kept, %", "accuracy", "lesion questions", "specificity", *types]
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
    """Paired comparison of the settings of the bundle with other configurations on the same questions."""
    lines = [
        "",
        "The bundle's settings compared with other configurations, paired by question. The difference is the accuracy "
        "of the bundle's settings minus that of the other configuration, in percentage points:",
        "",
    ]
    lines += _table(["compared with", "tokens kept, %", "difference, 95 % interval", "McNemar's p"])
    baselines = [name for name in metrics if name.startswith(("random", "uniform", "average"))]
    for other in ("unpruned", *(name for name in baselines if _complete(metrics, name))):
        found = compare_command(
            str(folder / other / "predictions.jsonl"), str(folder / own / "predictions.jsonl"), "meduni-vqa"
        )
        cell, test = found["micro"]["accuracy"], found["mcnemar"][HEADLINE_RULE]
        difference = f"{cell['difference']:+.1f} [{cell['low']:+.1f}, {cell['high']:+.1f}]"
        lines.append(_row([other, _kept(metrics[other]), difference, f"{test['p_value']:.2g}"]))
    return lines


def _sizes(folder: Path, names: Sequence[str], own: str, diameters: Mapping[str, float]) -> list[str]:
    """Accuracy on lesion questions by lesion diameter."""
    lines = [
        "",
        "Accuracy on lesion questions by lesion diameter:",
        "",
    ]
    lines += _table(["", *(f"{low:g} to {min(high, 30):g} mm" for low, high in BINS)])
    for name in names:
        lines.append(_row([_named(name, own), *(_by_size(folder / name, diameters, low, high) for low, high in BINS)]))
    return lines


def _attention(folder: Path, phantoms: Path, out: Path) -> list[str]:
    lines = ["", "Attention of the encoder by tissue over all slices, and overlaid on six of them:", ""]
    scored = next(path.parent for path in sorted(folder.glob("DINS alone*/metrics.json")))
    picture = f"evidence_{folder.name}_attention.png"
    return [*lines, *attention_lines(scored, phantoms, out / picture), "", f"![Attention]({picture})"]


def _recall(recall: Mapping[str, Mapping[str, float]], order: Sequence[str], own: str) -> list[str]:
    lines = [
        "",
        "Lesions seen (at least one slice kept), lesion slices and lesion tokens kept, in percent, and the mean ",
    ]
    lines[1] += "attention on tokens of lesions and of air (1 is uniform):"
    names = ["lesions seen", "lesion slices kept", "lesion tokens kept", "of those in kept slices"]
    names += ["attention: lesion", "attention: air"]
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
    """Return file name of the volume -> diameter of its lesion in mm, 0 for no lesion."""
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
    axes.set_xlabel("visual tokens kept, % of the tokens of all slices")
    axes.set_ylabel("accuracy, % (95 % interval)")
    axes.set_title(f"Small {family} trained on phantoms: synthetic", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
