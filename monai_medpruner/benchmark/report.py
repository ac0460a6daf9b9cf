# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The table and the plot of a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from monai_medpruner.benchmark.measure import BENCHMARK_STAGES

__all__ = ["benchmark_plot", "benchmark_table", "machine_text", "model_text"]

_COLUMNS = (
    "configuration",
    "slices",
    "tokens",
    *(f"{stage}, s" for stage in BENCHMARK_STAGES),
    "to first token, s",
    "ratio",
    "CPU, s",
    "ratio",
    "TFLOP",
    "ratio",
    "at full depth",
    "peak memory, GB",
)


def benchmark_table(measured: Mapping[str, Any]) -> str:
    """Return the rows of a measurement as a table in Markdown.

    Args:
        measured: what :func:`~.measure.measure` returned.
    """
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    for row in measured["rows"]:
        flops = sum(row["flops"][stage] for stage in ("encode", "select", "prefill"))
        ratios = row["ratios"]
        lines.append(
            _line(
                [
                    row["name"],
                    row["slices"],
                    row["visual_tokens"],
                    *(_seconds(row["seconds"][stage]) for stage in BENCHMARK_STAGES),
                    _seconds(row["first_token_s"]),
                    f"{ratios['first_token']:.1f}×",
                    _seconds(row["cpu_s"]),
                    f"{ratios['cpu']:.1f}×",
                    f"{flops / 1e12:.3g}",
                    f"{ratios['flops']:.1f}×",
                    f"{ratios['published_flops']:.1f}×",
                    f"{row['peak_bytes'] / 1e9:.2f}",
                ]
            )
        )
    return "\n".join(lines) + "\n"


def model_text(measured: Mapping[str, Any]) -> str:
    """Say what was measured: the model and its reductions, the image."""
    model, image = measured["model"], measured["image"]
    shape = " × ".join(map(str, image["shape"]))
    weights = f"{model['dtype']}, {model['weights_bytes'] / 1e9:.1f} GB of weights"
    return f"{model['name']}: {', '.join(model['said'])}; {weights}. Image: {shape} voxels."


def machine_text(machine: Mapping[str, Any]) -> str:
    """Name a machine and the versions of its packages."""
    versions = machine["versions"]
    device = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores"
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "monai"))
    return f"{device}, {machine['memory_gib']} GiB of memory; {packages}"


def benchmark_plot(measured: Sequence[Mapping[str, Any]]) -> Figure:
    """Return a figure with a bar for each configuration, its stages stacked, and an axis for each model.

    Args:
        measured: results of :func:`~.measure.measure`.
    """
    count = max(len(one["rows"]) for one in measured)
    figure = Figure(figsize=(8, len(measured) * (0.8 + 0.3 * count)), layout="constrained")
    for axes, one in zip(figure.subplots(len(measured), squeeze=False)[:, 0], measured, strict=True):
        rows = one["rows"]
        places = range(len(rows))
        left = [0.0] * len(rows)
        for stage in BENCHMARK_STAGES:
            widths = [row["seconds"][stage] for row in rows]
            axes.barh(places, widths, left=left, label=stage)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for place, row in zip(places, rows, strict=True):
            axes.annotate(f" {row['ratios']['first_token']:.1f}×", (left[place], place), va="center", fontsize=8)
        axes.set_yticks(list(places), [row["name"] for row in rows], fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.1)
        axes.set_title(one["model"]["name"], fontsize=10)
        axes.set_xlabel("seconds; ratio of unpruned to the first token")
    axes.legend(fontsize=7, loc="lower right")
    return figure


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
