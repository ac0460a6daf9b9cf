# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Command line: ``python -m monai_medpruner COMMAND ...``.

A command imports what it needs when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_medpruner import ask_arguments
from monai_medpruner.errors import own_error

__all__ = ["COMMANDS", "Command", "main"]


@dataclass(frozen=True)
class Command:
    """A command of the package.

    Args:
        summary: what it does, in one sentence.
        add_arguments: declares its arguments on its parser.
        run: does it, given the parsed arguments.
    """

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def _convert_hulumed_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="folder of the Hulu-Med checkpoint, as published")
    parser.add_argument("destination", type=Path, help="folder to write, absent or empty")


def _convert_hulumed(arguments: argparse.Namespace) -> None:
    from monai_medpruner.networks.convert_hulumed import convert_hulumed

    convert_hulumed(arguments.source, arguments.destination)


def _scoring_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--protocol", default="meduni-vqa", help="meduni-vqa, meduni-report, m3d-official or 3drad-official"
    )
    parser.add_argument("--output", help="JSON file to write as well, with the values of every item")
    parser.add_argument("--wordnet", help="folder that prepare_wordnet made; without it METEOR has no synonyms")


def _score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("predictions", help="JSON lines of a run")
    _scoring_options(parser)


def _score(arguments: argparse.Namespace) -> None:
    from monai_medpruner.metrics import score_command

    _write(score_command(arguments.predictions, arguments.protocol, arguments.output, arguments.wordnet))


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", help="JSON lines of one run")
    parser.add_argument("second", help="JSON lines of another run on the same items")
    _scoring_options(parser)


def _compare(arguments: argparse.Namespace) -> None:
    from monai_medpruner.metrics import compare_command

    runs = arguments.first, arguments.second
    _write(compare_command(*runs, arguments.protocol, arguments.output, arguments.wordnet))


def _prepare_wordnet_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("destination", type=Path, help="folder to write, 36 MB")


def _prepare_wordnet(arguments: argparse.Namespace) -> None:
    from monai_medpruner.metrics import prepare_wordnet

    prepare_wordnet(arguments.destination)


def _write(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def _ask(arguments: argparse.Namespace) -> None:
    from monai_medpruner.ask import ask

    ask(arguments)


def _phantom_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=200, help="number of volumes. Default: 200")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files. Default: 0")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write, absent, empty, or of a run that broke off"
    )
    parser.add_argument(
        "--preset",
        default="default",
        choices=("default", "small"),
        help="small: slices of 96 x 96 pixels, what the models of bundles/medpruner_phantom know. Default: default",
    )


def _phantom(arguments: argparse.Namespace) -> None:
    from monai_medpruner.data.phantom import PRESETS, phantom_command

    phantom_command(arguments.count, arguments.seed, arguments.out, PRESETS[arguments.preset])


def _answers_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("answers", type=Path, help="answers.jsonl of a bundle's run, or the folder that holds it")
    parser.add_argument("--truth", type=Path, help="folder of phantoms, or a table in M3D-VQA's form")


def _answers(arguments: argparse.Namespace) -> None:
    from monai_medpruner.report import answer_table

    sys.stdout.write(answer_table(arguments.answers, arguments.truth))


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--benchmark", default="m3d_vqa", help="m3d_vqa, rad3d, amos_mm or question_table")
    parser.add_argument("--dataset_dir", required=True, help="folder of the benchmark")
    parser.add_argument("--output_dir", required=True, help="folder to write; a run that broke off goes on")
    parser.add_argument("--model", help="Hub id, checkpoint folder, or 'tiny'. Default: that of the bundle")
    parser.add_argument("--bundle", choices=sorted(ask_arguments.bundles()), default="medpruner_qwen3vl")
    parser.add_argument("--gamma", nargs="+", help="thresholds of the slice filter, numbers or none")
    parser.add_argument("--tau", nargs="+", help="shares of attention that selected tokens hold")
    parser.add_argument("--temperature", nargs="+", help="temperatures of the scores")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="other settings of the bundle, such as task=closed"
    )


def _sweep(arguments: argparse.Namespace) -> None:
    from monai_medpruner.sweep import sweep

    sweep(arguments)


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def _label_app(arguments: argparse.Namespace) -> None:
    from monai_medpruner.label.app_folder import app_folder

    sys.stdout.write(f"{app_folder()}\n")


#: every command, by its name
COMMANDS: dict[str, Command] = {
    "ask": Command(
        "Ask about a volume with the bundle made for the model, and print the answer as it is generated.",
        ask_arguments.add_arguments,
        _ask,
    ),
    "answers": Command(
        "Print the answers of a run, beside the truth if there is one, with what was kept and the seconds.",
        _answers_arguments,
        _answers,
    ),
    "convert_hulumed": Command(
        "Write a Hulu-Med checkpoint as a native VideoLLaMA3 one, which needs no code of the checkpoint.",
        _convert_hulumed_arguments,
        _convert_hulumed,
    ),
    "score": Command("Score the predictions of a run by a named protocol, with intervals.", _score_arguments, _score),
    "compare": Command("Compare two runs on the same items, pair by pair.", _compare_arguments, _compare),
    "sweep": Command(
        "Evaluate a grid of settings, each volume encoded once, and write a table and a plot.",
        _sweep_arguments,
        _sweep,
    ),
    "prepare_wordnet": Command(
        "Fetch WordNet from Debian's packages, for METEOR offline.", _prepare_wordnet_arguments, _prepare_wordnet
    ),
    "phantom": Command(
        "Write CT phantoms with known truth: volumes, masks, questions in M3D-VQA's form, reports.",
        _phantom_arguments,
        _phantom,
    ),
    "label_app": Command(
        "Print the folder of the MONAI Label app, for: monailabel start_server --app FOLDER.", _no_arguments, _label_app
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        argv: the words after ``python -m monai_medpruner``; those of the process where None.

    Raises:
        SystemExit: with status 1 and the error's message for an error of this package, with status 2 for wrong
            arguments.
    """
    parser = argparse.ArgumentParser(prog="python -m monai_medpruner", description="Pruning for 3-D medical VLMs.")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.summary, description=command.summary))
    arguments = parser.parse_args(argv)
    try:
        COMMANDS[arguments.command].run(arguments)
    except Exception as raised:
        if (error := own_error(raised)) is None:
            raise
        parser.exit(1, f"{parser.prog} {arguments.command}: error: {error}\n")


if __name__ == "__main__":
    main()
