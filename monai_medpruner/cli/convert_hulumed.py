# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner convert_hulumed``."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "Convert a Hulu-Med checkpoint to a native VideoLLaMA3 checkpoint, which needs no remote code."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", type=Path, help="folder of the Hulu-Med checkpoint, as published")
    parser.add_argument("destination", type=Path, help="folder to write; must not exist or be empty")


def run(arguments: argparse.Namespace) -> None:
    """Convert a checkpoint."""
    from monai_medpruner.networks import convert_hulumed

    convert_hulumed.convert_hulumed(arguments.source, arguments.destination)
