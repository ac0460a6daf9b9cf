# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner keep-map``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from monai_medpruner.terminal_text import printable

SUMMARY = "Write what was kept of each study as a label map and an importance map on the grid of its file."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("results", type=Path, help="output folder of a run; the maps are written to keep_maps/ in it")


def run(arguments: argparse.Namespace) -> None:
    """Write the maps and print their paths."""
    from monai_medpruner.report import write_keep_maps

    for path, note in write_keep_maps(arguments.results):
        if path is not None:
            sys.stdout.write(printable(f"{path}") + "\n")
        if note is not None:
            sys.stderr.write(printable(f"note: {note}") + "\n")
