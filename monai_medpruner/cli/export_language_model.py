# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner export_language_model``."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "Write the language model of a VideoLLaMA3 checkpoint (Hulu-Med) as a checkpoint of its own, for vLLM."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", help="folder or Hub id of the checkpoint; convert Hulu-Med first")
    parser.add_argument("destination", type=Path, help="folder to write; must not exist or be empty")


def run(arguments: argparse.Namespace) -> None:
    """Export a language model."""
    from monai_medpruner.networks import export_language_model

    export_language_model.export_language_model(arguments.source, arguments.destination)
