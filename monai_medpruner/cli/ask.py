# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner ask``: ask about a volume and print the answer as it is generated."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai_medpruner.cli.report_option import add_report_option, write_pages
from monai_medpruner.cli.setting_options import add_model_options, add_setting_options, given_settings, longest_question
from monai_medpruner.settings import DEFAULT_BUNDLE, bundle_folders, setting_overrides, settings
from monai_medpruner.terminal_text import printable

SUMMARY = "Ask about a volume with the bundle for the model, and print the answer as it is generated."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--image", nargs="+", required=True, help="NIfTI file, DICOM folder or CSV; one or more")
    parser.add_argument("--question", nargs="+", default=[], help="any text, asked verbatim; one or more")
    parser.add_argument("--questions_file", help='JSONL file with a line {"question": "..."} for each question')
    add_report_option(parser)
    add_model_options(parser)
    add_setting_options(parser, ("budget", "slices", "tokens", "model", "limits", "output"))


def run(arguments: argparse.Namespace) -> None:
    """Run a bundle on the images and questions, and write each answer to standard output as it is generated.

    Raises:
        FailedVolumesError: some of several volumes failed; raised after the last one.
        MedPrunerError: an image, a question, a setting or the model is invalid.
    """
    from ignite.engine import Events

    from monai_medpruner.bundles import open_bundle
    from monai_medpruner.data import question_items, require_items

    given = dict(given_settings(arguments))
    items = question_items(
        arguments.image, arguments.question, arguments.questions_file, max_characters=longest_question(given)
    )
    require_items(items)
    folder = _chosen_bundle(arguments)
    overrides = setting_overrides(folder, given)
    workflow = open_bundle(folder, overrides, items=items)
    answers = _Answers(several=sum(len(item["question"]) for item in items) > 1)
    workflow.network_def.stream = answers
    workflow.evaluator.add_event_handler(Events.ITERATION_STARTED, answers.begin_volumes)
    workflow.evaluator.add_event_handler(Events.ITERATION_COMPLETED, _write_summary)
    if arguments.report:
        output_dir = overrides.get("output_dir", settings()["output_dir"].default)
        workflow.evaluator.add_event_handler(Events.COMPLETED, _write_reports, output_dir)
    workflow.run()


def _write_reports(engine: Any, folder: str) -> None:
    """Write the pages of the volumes that were answered."""
    if engine.failed < engine.volumes:
        write_pages(folder)


def _chosen_bundle(arguments: argparse.Namespace) -> Path:
    from monai_medpruner.bundles import bundle_for_checkpoint
    from monai_medpruner.testing import TINY

    if arguments.bundle is not None:
        return bundle_folders()[arguments.bundle]
    if arguments.model in (None, TINY):
        return bundle_folders()[DEFAULT_BUNDLE]
    return bundle_for_checkpoint(arguments.model, arguments.revision)


def _write_summary(engine: Any) -> None:
    """Write what was kept, the seconds and the notes of each study, or its error, to standard error."""
    from tqdm import tqdm

    from monai_medpruner.report import kept_text, seconds_text

    if (failed := engine.state.output.get("failed")) is not None:
        tqdm.write(printable(f"error: {failed.image}: {failed.error[1]}"), file=sys.stderr)
    for study in engine.state.output["pred"]:
        summary = study.record.summary()
        seconds = [study.record.seconds, *(answer.seconds for answer in study.answers)]
        spent = {stage: sum(one.get(stage, 0.0) for one in seconds) for one in seconds for stage in one}
        lines = [f"{kept_text(summary['slices'], summary['tokens'])}; {seconds_text([spent])}"]
        lines += [f"note: {note}" for note in summary["notes"]]
        if cut := [answer.new_tokens for answer in study.answers if answer.truncated]:
            lines.append(
                f"note: {len(cut)} answer(s) ended after {max(cut)} tokens, their length limit; see --max_new_tokens"
            )
        tqdm.write(printable("\n".join(lines)), file=sys.stderr)  # a progress bar may be on the line


class _Answers:
    """Writes answers to standard output as they are generated, with their questions if there are several."""

    def __init__(self, several: bool) -> None:
        self.several = several
        self.questions: Iterator[str] = iter(())
        self.begins = True

    def begin_volumes(self, engine: Any) -> None:
        """Take the questions about the volumes of a batch."""
        if not self.begins:  # the volume before failed within an answer
            sys.stdout.write("\n")
            self.begins = True
        self.questions = iter([text for asked in engine.state.batch["question"] for text in asked])

    def __call__(self, piece: str, ends: bool) -> None:
        if self.begins and self.several:
            sys.stdout.write(f"> {printable(next(self.questions))}\n")
        sys.stdout.write(printable(piece) + "\n" * ends)
        sys.stdout.flush()
        self.begins = ends
