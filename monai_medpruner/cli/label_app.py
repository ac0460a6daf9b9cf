# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner label_app``."""

from __future__ import annotations

import argparse
import sys

SUMMARY = "Print the folder of the MONAI Label app, for: monailabel start_server --app FOLDER."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no arguments."""


def run(arguments: argparse.Namespace) -> None:
    """Write the app's folder and print its path."""
    from monai_medpruner.label.app_folder import app_folder

    sys.stdout.write(f"{app_folder()}\n")
