# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner answers``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from monai_medpruner.terminal_text import printable

SUMMARY = "Print the answers of a run with the truth, if known, the retention and the seconds per stage."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("answers", type=Path, help="answers.jsonl of a bundle's run, or its folder")
    parser.add_argument("--truth", type=Path, help="folder of phantoms, or a table in the format of M3D-VQA")


def run(arguments: argparse.Namespace) -> None:
    """Print a table of answers."""
    from monai_medpruner.report import answer_table

    sys.stdout.write(printable(answer_table(arguments.answers, arguments.truth)))
