# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner compare``."""

from __future__ import annotations

import argparse

from monai_medpruner.cli.scoring_options import add_scoring_options, write_result

SUMMARY = "Compare two runs on the same items with paired tests."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("first", help="JSON lines of one run")
    parser.add_argument("second", help="JSON lines of another run on the same items")
    add_scoring_options(parser)
    parser.add_argument("--page", help="HTML file to write: differences, and the questions that flipped")


def run(arguments: argparse.Namespace) -> None:
    """Compare two runs and write the result to standard output; with --page, a page too."""
    from monai_medpruner.metrics import compare_command

    runs = arguments.first, arguments.second
    result = compare_command(*runs, arguments.protocol, arguments.output, arguments.wordnet)
    if arguments.page is not None:
        from monai_medpruner.report import write_comparison

        write_comparison(result, *runs, arguments.page)
    write_result(result)
