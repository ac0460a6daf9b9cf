# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner prepare_wordnet``."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "Download WordNet from Debian's packages, for METEOR without a network."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("destination", type=Path, help="folder to write, 36 MB")


def run(arguments: argparse.Namespace) -> None:
    """Download WordNet."""
    from monai_medpruner.metrics import prepare_wordnet

    prepare_wordnet(arguments.destination)
