# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The registry of commands, and the main function."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, ModuleType

from monai_medpruner import __version__
from monai_medpruner.cli import (
    answers,
    archive,
    ask,
    benchmark,
    compare,
    convert_hulumed,
    evaluate,
    export_language_model,
    keep_map,
    label_app,
    phantom,
    prepare_wordnet,
    report,
    score,
    sweep,
    view,
)
from monai_medpruner.errors import own_error

__all__ = ["COMMANDS", "main"]

#: all commands by name
COMMANDS: dict[str, ModuleType] = {
    "ask": ask,
    "answers": answers,
    "report": report,
    "keep-map": keep_map,
    "view": view,
    "archive": archive,
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
            arguments; status 143 after SIGTERM.
    """
    parser = argparse.ArgumentParser(
        prog="medpruner",
        description="Training-free pruning for 3-D medical vision-language models.",
        epilog="medpruner COMMAND --help lists the options of a command. Begin with docs/get_started.md.",
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
    shown = f"{parser.prog} {arguments.command}"
    try:
        with _ends_by_exception():
            COMMANDS[arguments.command].run(arguments)
    except _Terminated:
        sys.stderr.write(f"{shown}: ended by SIGTERM; what was done is saved\n")
        raise
    except Exception as raised:
        if (error := own_error(raised)) is None:
            raise
        sys.stderr.write(f"{shown}: error: {error}\n")
        raise SystemExit(1) from raised


class _Terminated(SystemExit):
    """The end that SIGTERM asks for; a shell gives 143 as the status of a process that it ended."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextmanager
def _ends_by_exception() -> Iterator[None]:
    """Let SIGTERM end the process by an exception, so that files are closed and processes are ended."""
    if threading.current_thread() is not threading.main_thread():  # no other may set a handler
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    raise _Terminated
