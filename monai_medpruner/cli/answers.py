# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner answers``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

SUMMARY = "Print the answers of a run, beside the truth if there is one, with what was kept and the seconds."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("answers", type=Path, help="answers.jsonl of a bundle's run, or the folder that holds it")
    parser.add_argument("--truth", type=Path, help="folder of phantoms, or a table in M3D-VQA's form")


def run(arguments: argparse.Namespace) -> None:
    """Print a table of answers."""
    from monai_medpruner.report import answer_table

    sys.stdout.write(answer_table(arguments.answers, arguments.truth))
