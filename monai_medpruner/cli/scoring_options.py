# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Options shared by the commands that score."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from monai_medpruner.terminal_text import printable

__all__ = ["add_scoring_options", "write_result"]


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options for scoring and output."""
    parser.add_argument(
        "--protocol",
        default="meduni-vqa",
        help="name of the protocol; an unknown name prints the list. Default: meduni-vqa",
    )
    parser.add_argument("--output", help="JSON file for the result with the values of every item")
    parser.add_argument("--wordnet", help="folder from prepare_wordnet; without it METEOR has no synonyms")


def write_result(result: dict[str, Any]) -> None:
    """Write a result to standard output."""
    sys.stdout.write(printable(json.dumps(result, indent=2, ensure_ascii=False)) + "\n")
