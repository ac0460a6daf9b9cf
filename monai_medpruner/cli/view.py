# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner view``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

SUMMARY = "Show a study and its keep-map in three planes in the browser, by a server for this machine alone (NiiVue)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("results", type=Path, help="output folder of a run")
    parser.add_argument("--study", help="beginning of a record's name, for one study of several")
    parser.add_argument("--mask", type=Path, help="label map of a lesion on the image's grid, shown over the rest")
    parser.add_argument("--port", type=int, default=0, help="port of 127.0.0.1; 0 for any free one. Default: 0")
    parser.add_argument("--no_browser", action="store_true", help="print the address alone")


def run(arguments: argparse.Namespace) -> None:
    """Serve the study until Ctrl-C."""
    import webbrowser

    from monai_medpruner.report import study_server

    options = {name: getattr(arguments, name) for name in ("study", "mask", "port")}
    with study_server(arguments.results, **options) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        sys.stderr.write("Ctrl-C ends the server; nothing is left on disk.\n")
        if not arguments.no_browser and _has_display():
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stderr.write("ended\n")


def _has_display() -> bool:
    """Return whether a browser would open a window; without one, it would take the terminal."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
