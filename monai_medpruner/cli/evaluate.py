# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner evaluate``: evaluate a model with one configuration on a benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from monai_medpruner.cli.report_option import add_report_option, write_missing_pages
from monai_medpruner.cli.setting_options import add_model_options, add_setting_options, given_settings
from monai_medpruner.settings import DEFAULT_BUNDLE, bundle_folders, setting_overrides
from monai_medpruner.terminal_text import printable

SUMMARY = "Ask all questions of a benchmark, and score the answers."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--dataset_dir", required=True, help="folder of the benchmark")
    parser.add_argument("--output_dir", required=True, help="folder to write; interrupted runs resume automatically")
    add_report_option(parser)
    add_model_options(parser, DEFAULT_BUNDLE)
    add_setting_options(
        parser, ("evaluation", "budget", "slices", "tokens", "model", "limits"), without=("dataset_dir", "output_dir")
    )


def run(arguments: argparse.Namespace) -> None:
    """Run a bundle's ``evaluate.json`` and write the metrics to standard output.

    Raises:
        MedPrunerError: a setting, the data or the model is invalid.
    """
    folder = bundle_folders()[arguments.bundle]
    overrides = setting_overrides(folder, dict(given_settings(arguments)))

    from monai_medpruner.bundles import open_bundle

    for row in open_bundle(folder, overrides, configs=("inference", "evaluate")).evaluator.run():
        sys.stdout.write(_summary(row["metrics"]))
        sys.stdout.write(printable(f"metrics: {arguments.output_dir}/metrics.json\n"))
        if arguments.report:
            write_missing_pages(arguments.output_dir)


def _summary(metrics: Mapping[str, Any]) -> str:
    """Return a line per metric over all items, and what was kept."""
    lines = [
        f"items: {metrics['items']} about {metrics['volumes']} volumes, {metrics['failed']} failed, "
        f"{metrics['truncated']} answers ended at their length limit"
    ]
    for name, cell in metrics["micro"].items():
        if isinstance(cell, Mapping) and cell["value"] is not None:
            lines.append(f"{name}: {cell['value']:.1f} % (95 % interval {cell['low']:.1f} to {cell['high']:.1f})")
    if (kept := metrics["retention"]["overall"]) is not None:
        lines.append(f"kept: {kept:.1%} of the visual tokens")
    return "".join(f"{line}\n" for line in lines)
