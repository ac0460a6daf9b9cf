# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What the commands that score share."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

__all__ = ["add_scoring_options", "write_result"]


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """Declare how to score, and where to write."""
    parser.add_argument(
        "--protocol",
        default="meduni-vqa",
        help="how to score. Default: meduni-vqa. An unknown name is answered with the list",
    )
    parser.add_argument("--output", help="JSON file to write as well, with the values of every item")
    parser.add_argument("--wordnet", help="folder that prepare_wordnet made; without it METEOR has no synonyms")


def write_result(result: dict[str, Any]) -> None:
    """Write a result to standard output."""
    sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
