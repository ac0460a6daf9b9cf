# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The option ``--report`` of commands that run a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from monai_medpruner.terminal_text import printable

__all__ = ["add_report_option", "write_missing_pages", "write_pages"]


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--report``."""
    parser.add_argument("--report", action="store_true", help="write a page for each study, as medpruner report does")


def write_pages(folder: str | Path) -> None:
    """Write the pages of all studies of a run, and name each on standard error."""
    from monai_medpruner.report import write_reports

    for path, note in write_reports(folder):
        sys.stderr.write(printable(f"report: {path}" + (f" ({note})" if note else "")) + "\n")


def write_missing_pages(folder: str | Path) -> None:
    """Write the pages that a run does not have yet, or that are out of date, and say on standard error how many."""
    from tqdm import tqdm

    from monai_medpruner.report import write_reports
    from monai_medpruner.results import read_results

    results = read_results(folder)
    names = results.record_names
    written = 0
    # without a study there is no page, and write_reports refuses
    for path, note in tqdm(write_reports(folder, skip_current=True) if names else (), desc="reports", unit="page"):
        written += 1
        if note is not None:
            tqdm.write(printable(f"report: {path} ({note})"), file=sys.stderr)
    sys.stderr.write(printable(f"reports in {Path(folder) / 'reports'}: {len(names)}, written now: {written}") + "\n")
    encoded = {line["image"] for line in results.lines if "record" in line}
    if failed := {line["image"] for line in results.lines if "record" not in line} - encoded:
        sys.stderr.write(f"volumes that failed and have no report: {len(failed)}; see the status of their lines\n")
