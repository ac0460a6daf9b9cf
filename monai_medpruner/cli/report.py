# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner report``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from monai_medpruner.terminal_text import printable

SUMMARY = "Write a page for each study: its slices, tokens, distances and answers, in one HTML file without a network."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("results", type=Path, help="output folder of a run; the pages are written to reports/ in it")
    parser.add_argument("--study", help="beginning of a record's name, for one study of several")
    parser.add_argument(
        "--mask", type=Path, help="label map of a lesion on the image's grid: outline, what was kept, and why"
    )
    parser.add_argument("--against", type=Path, help="output folder of another run about the same images")
    parser.add_argument("--deidentify", action="store_true", help="leave out pixels, paths and UIDs")


def run(arguments: argparse.Namespace) -> None:
    """Write the pages and print their paths."""
    from monai_medpruner.report import write_reports

    options = {name: getattr(arguments, name) for name in ("study", "mask", "against", "deidentify")}
    for path, note in write_reports(arguments.results, **options):
        sys.stdout.write(printable(f"{path}") + "\n")
        if note is not None:
            sys.stderr.write(printable(f"note: {note}") + "\n")
