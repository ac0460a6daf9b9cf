# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner archive``: ask about many studies, on one machine or a Ray cluster."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from monai_medpruner.cli.setting_options import add_model_options, add_setting_options, given_settings, longest_question
from monai_medpruner.settings import DEFAULT_BUNDLE, bundle_folders, setting_overrides
from monai_medpruner.terminal_text import printable

SUMMARY = "Ask about all studies of an archive with Ray, on one machine or a cluster."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--studies", required=True, help="folder of NIfTI files and DICOM folders, or a CSV with a column image"
    )
    parser.add_argument(
        "--questions",
        help='text file (.txt) with a question per line, or JSONL with lines {"question": "...", "image": "...", '
        '"id": "..."}, the last two optional; not needed where the CSV has a column question',
    )
    parser.add_argument("--out", required=True, help="folder to write; the same command resumes an interrupted run")
    parser.add_argument("--retry_failed", action="store_true", help="ask again what failed in an earlier run")
    group = parser.add_argument_group("cluster")
    group.add_argument("--address", help="Ray's address of a cluster. Default: RAY_ADDRESS, or this machine alone")
    group.add_argument("--readers", type=int, metavar="COUNT", help="processes that read. Default: by the CPUs")
    group.add_argument("--encoders", type=int, metavar="COUNT", help="processes that encode. Default: one per GPU")
    group.add_argument("--answerers", type=int, metavar="COUNT", help="processes that answer. Default: one per encoder")
    group.add_argument(
        "--buffer_gb", type=float, metavar="GB", help="studies on the way between the stages. Default: Ray's own limit"
    )
    add_model_options(parser, DEFAULT_BUNDLE)
    add_setting_options(parser, ("budget", "slices", "tokens", "model", "limits"), without=("cache_dir", "cache_gb"))


def run(arguments: argparse.Namespace) -> None:
    """Answer the questions, and write how many were answered to standard output.

    Raises:
        MedPrunerError: the studies, a question, a setting or the model is invalid.
    """
    given = dict(given_settings(arguments))
    overrides = setting_overrides(bundle_folders()[arguments.bundle], given)

    from monai_medpruner.archive import BundleSettings, Workers, answer_archive, archive_items

    lines = answer_archive(
        archive_items(arguments.studies, arguments.questions, longest_question(given)),
        arguments.out,
        BundleSettings(arguments.bundle, overrides),
        address=arguments.address,
        workers=Workers(arguments.readers, arguments.encoders, arguments.answerers),
        buffer_gb=arguments.buffer_gb,
        retry_failed=arguments.retry_failed,
    )
    failed = Counter(line["status"] for line in lines if line["status"] != "ok")
    studies = len({line["image"] for line in lines})
    sys.stdout.write(f"questions: {len(lines)} about {studies} studies, {failed.total()} failed\n")
    for name, count in failed.most_common():
        sys.stdout.write(printable(f"{name}: {count}\n"))
    sys.stdout.write(printable(f"predictions: {arguments.out}/predictions.jsonl\n"))
