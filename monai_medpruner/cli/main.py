# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The registry of commands, and the main function."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from types import ModuleType

from monai_medpruner import __version__
from monai_medpruner.cli import (
    answers,
    ask,
    benchmark,
    compare,
    convert_hulumed,
    evaluate,
    export_language_model,
    label_app,
    phantom,
    prepare_wordnet,
    score,
    sweep,
)
from monai_medpruner.errors import own_error

__all__ = ["COMMANDS", "main"]

#: all commands by name
COMMANDS: dict[str, ModuleType] = {
    "ask": ask,
    "answers": answers,
    "convert_hulumed": convert_hulumed,
    "export_language_model": export_language_model,
    "evaluate": evaluate,
    "score": score,
    "compare": compare,
    "sweep": sweep,
    "benchmark": benchmark,
    "prepare_wordnet": prepare_wordnet,
    "phantom": phantom,
    "label_app": label_app,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        argv: the arguments after ``medpruner``; None takes those of the process.

    Raises:
        SystemExit: status 1, with the message on standard error, for an error of this package; status 2 for invalid
            arguments.
    """
    parser = argparse.ArgumentParser(
        prog="medpruner", description="Training-free pruning for 3-D medical vision-language models."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(
            commands.add_parser(name, help=command.SUMMARY, description=command.SUMMARY, allow_abbrev=False)
        )
    arguments, rest = parser.parse_known_args(argv)
    if hasattr(arguments, "further"):
        # options with :: in their names, and settings that only one bundle has
        arguments.further = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    # ignite logs an error that passes through an engine, and the engine's caller again; it is written once, below
    logging.getLogger("ignite.engine.engine").setLevel(logging.CRITICAL)
    try:
        COMMANDS[arguments.command].run(arguments)
    except Exception as raised:
        if (error := own_error(raised)) is None:
            raise
        sys.stderr.write(f"{parser.prog} {arguments.command}: error: {error}\n")
        raise SystemExit(1) from raised
