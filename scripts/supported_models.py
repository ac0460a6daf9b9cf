# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Print the table of supported models, or check the table in a page: ``supported_models.py [--check README.md]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_medpruner.networks.families import FAMILIES

BEGIN, END = "<!-- supported models -->", "<!-- /supported models -->"

_HEADINGS = ("`model_type`", "models", "one token is", "positions of kept tokens", "scored block", "side rows")


def table() -> str:
    """Return the Markdown table with one row per registered family."""
    rows = [_HEADINGS, ("---",) * len(_HEADINGS)]
    for family in FAMILIES:
        one = family.summary
        names = ", ".join(f"`{name}`" for name in family.model_types)
        rows.append((names, one.serves, one.merge, one.positions, one.scored_layer, one.deepstack_features))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def difference(page: str) -> str | None:
    """Return what is wrong with the table between the markers of a page; None if it is up to date."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        return f"there must be one {BEGIN} and, after it, one {END}"
    current = page.split(BEGIN)[1].split(END)[0].strip()
    return None if current == table() else f"the table between {BEGIN} and {END} is not up to date; it must be"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. The exit status is 1 if the table in the page is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=Path, metavar="PAGE", help="compare with this page instead of printing")
    page = parser.parse_args(arguments).check
    if page is None:
        sys.stdout.write(f"{table()}\n")
        return 0
    wrong = difference(page.read_text(encoding="utf-8"))
    if wrong is not None:
        sys.stderr.write(f"{page}: {wrong}\n\n{table()}\n")
    return int(wrong is not None)


if __name__ == "__main__":
    sys.exit(main())
