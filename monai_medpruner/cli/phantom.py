# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner phantom``."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "Write CT phantoms with known truth: volumes, masks, reports, and questions in the format of M3D-VQA."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--count", type=int, default=200, help="number of volumes. Default: 200")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files. Default: 0")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; new, empty, or of an interrupted run")
    parser.add_argument(
        "--preset",
        default="default",
        choices=("default", "small", "findings"),
        help="small: 96 x 96 pixels, as in the training data of bundles/medpruner_phantom; findings: heads with one to "
        "four small findings of low contrast, and questions about their place, number and size. Default: default",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write phantoms."""
    from monai_medpruner.data.phantom import PRESETS, FindingsSettings, phantom_command

    settings = FindingsSettings() if arguments.preset == "findings" else PRESETS[arguments.preset]
    phantom_command(arguments.count, arguments.seed, arguments.out, settings)
