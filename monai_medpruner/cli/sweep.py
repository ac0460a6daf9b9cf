# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner sweep``: evaluate a grid of settings on a benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from monai_medpruner.cli.setting_options import add_model_options, add_setting_options, given_settings
from monai_medpruner.settings import DEFAULT_BUNDLE, bundle_folders, setting_overrides, settings

SUMMARY = "Evaluate a grid of settings, encoding each volume once, and write a table, a plot and a page."

#: option -> the setting of sweep.json
_GRID = {"gamma": "gammas", "tau": "taus", "temperature": "temperatures"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--dataset_dir", required=True, help="folder of the benchmark")
    parser.add_argument("--output_dir", required=True, help="folder to write; interrupted runs resume automatically")
    add_model_options(parser, DEFAULT_BUNDLE)
    parser.add_argument("--gamma", nargs="+", help="thresholds of the slice filter, numbers or none")
    parser.add_argument("--tau", nargs="+", help="shares of attention that the selected tokens cover")
    parser.add_argument("--temperature", nargs="+", help="temperatures of the scores")
    own = ("dataset_dir", "output_dir", *_GRID)
    add_setting_options(parser, ("evaluation", "budget", "slices", "tokens", "model", "limits"), own)


def run(arguments: argparse.Namespace) -> None:
    """Run a bundle's ``sweep.json`` and write the table to standard output.

    Raises:
        MedPrunerError: a setting, the data or the model is invalid.
    """
    folder = bundle_folders()[arguments.bundle]
    overrides = setting_overrides(folder, dict(given_settings(arguments)))
    for name, listed in _GRID.items():
        if (texts := getattr(arguments, name)) is not None:
            overrides[listed] = [settings()[name].read(text) for text in texts]

    from monai_medpruner.bundles import open_bundle
    from monai_medpruner.report import sweep_table, write_sweep

    workflow = open_bundle(folder, overrides, configs=("inference", "evaluate", "sweep"))
    rows = workflow.evaluator.run()
    write_sweep(rows, arguments.output_dir)
    sys.stdout.write(_text_table(sweep_table(rows)))


def _text_table(lines: Sequence[dict[str, Any]]) -> str:
    """Return a table of the settings, the kept fractions, and every metric with its interval."""
    measures = [name for name in lines[0] if f"{name}_low" in lines[0] and any(one[name] is not None for one in lines)]
    # accuracies under other rules of parsing are only in the file
    measures = [name for name in measures if not name.startswith(("accuracy_", "unparsed"))]
    shares = ("slices", "tokens_per_kept_slice", "overall")
    rows = [[*_GRID, *shares, *measures]]
    for line in lines:
        cells = ["none" if line[name] is None else f"{line[name]:g}" for name in _GRID]
        cells += ["" if line[name] is None else f"{line[name]:.3f}" for name in shares]
        for name in measures:
            low, high = line[f"{name}_low"], line[f"{name}_high"]
            cells.append("" if line[name] is None else f"{line[name]:.1f} [{low:.1f}, {high:.1f}]")
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)
