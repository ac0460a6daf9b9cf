# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What ``python -m monai_medpruner ask`` takes; imports nothing heavy, so that its help answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_medpruner.errors import SettingsError

__all__ = ["SETTINGS", "add_arguments", "bundles"]

#: settings of the bundles that have an option of their own, and how their text is read
SETTINGS: dict[str, Any] = {
    "modality": str,
    "windows": str,
    "plane": str,
    "slices": str,
    "series_uid": str,
    "gamma": float,
    "pruner": str,
    "tau": float,
    "temperature": float,
    "max_slices": int,
    "max_new_tokens": int,
    "vision_batch_size": int,
    "dtype": str,
    "revision": str,
    "output_dir": str,
}


def bundles() -> dict[str, Path]:
    """Return the folders of the bundles by name: those of the package, else those of the checkout around it."""
    package = Path(__file__).resolve().parent
    for folder in (package / "bundles", package.parent / "bundles"):
        if found := {path.parent.parent.name: path.parent.parent for path in folder.glob("*/configs/inference.json")}:
            return found
    raise SettingsError(f"no bundles were found in {package} or beside it; install the package again")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ask``."""
    parser.add_argument("--image", nargs="+", required=True, help="NIfTI file, DICOM folder or CSV; one or several")
    parser.add_argument("--question", nargs="+", default=[], help="any text, word for word; one or several")
    parser.add_argument("--questions_file", help='JSONL file, a line {"question": "..."} for each question')
    parser.add_argument(
        "--model", help="Hub id or checkpoint folder; 'tiny' for random weights. Default: that of the bundle"
    )
    parser.add_argument("--bundle", choices=sorted(bundles()), help="whose settings to take. Default: by the model")
    settings = parser.add_argument_group(
        "settings", "as in the bundle's configs/inference.json, whose values hold else"
    )
    for name, kind in SETTINGS.items():
        settings.add_argument(f"--{name}", metavar=kind.__name__.upper())
