# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What the fuzzers have in common: a mutant is made by its seed, read, and judged; a finding ends with status 1."""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

__all__ = ["FINDING", "judge", "main"]

#: how the text of an outcome that must not be begins
FINDING = "FINDING"
Found = dict[int, tuple[str, str]]


def judge(
    seeds: Iterable[int], write: Callable[[int, Path], tuple[str, Path]], outcome: Callable[[Path], str]
) -> Found:
    """Write, read and judge the mutants of some seeds, and print findings as they come.

    Args:
        seeds: of the mutants.
        write: makes the mutant of a seed in a folder; returns its kind and its file.
        outcome: what became of a file; begins with :data:`FINDING` where it must not be.

    Returns:
        kind and outcome of each mutant, by its seed.
    """
    found: Found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                kind, path = write(seed, Path(folder))
                found[seed] = kind, outcome(path)
            if found[seed][1].startswith(FINDING):
                sys.stdout.write(f"seed {seed}, {kind}: {found[seed][1]}\n")
                sys.stdout.flush()
    return found


def main(document: str | None, run: Callable[[Iterable[int]], Found]) -> None:
    """Run a fuzzer as a command, and print how often each outcome was."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    found = run(tqdm(seeds, file=sys.stderr))
    for text, count in Counter(text.split(":")[0] for _, text in found.values()).most_common():
        sys.stdout.write(f"{count} {text}\n")
    sys.exit(any(text.startswith(FINDING) for _, text in found.values()))
