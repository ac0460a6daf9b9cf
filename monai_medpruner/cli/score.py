# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner score``."""

from __future__ import annotations

import argparse

from monai_medpruner.cli.scoring_options import add_scoring_options, write_result

SUMMARY = "Score the predictions of a run with a protocol, with confidence intervals."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("predictions", help="JSON lines of a run")
    add_scoring_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Score a run."""
    from monai_medpruner.metrics import score_command

    write_result(score_command(arguments.predictions, arguments.protocol, arguments.output, arguments.wordnet))
