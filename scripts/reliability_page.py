# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Write the page of reliability: ``reliability_page.py [--measure [--only NAME] | --check]``.

Without an option, ``docs/reliability.md`` is written from ``benchmarks/results/reliability.json``. ``--measure`` first
reads every input of ``tests/data/hostile_inputs`` with this package and with other readers, each in a process of its
own; it needs ``pip install SimpleITK``. ``--check`` compares the page with the results.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "reliability.json"
PAGE = REPOSITORY / "docs" / "reliability.md"
INPUTS = REPOSITORY / "tests" / "data"
READERS = {"NIfTI": ("NibabelReader", "ITKReader", "SimpleITK"), "DICOM": ("PydicomReader", "ITKReader", "SimpleITK")}
PACKAGES = ("monai", "nibabel", "itk", "pydicom", "SimpleITK")
SECONDS = 60
SILENT = "**wrong without a word**"
HEAD = """# Reliability

What happens to files that went wrong for others: each row is one file or folder, made by a small generator in
`tests/data/hostile_inputs`, and one test. Nothing that this package reads may be wrong without a word.

- *right*: the voxels have the values that were written, and their corners lie where they were written, within 0.02 mm.
- *right, with a note*: so, and `notes` of the answer say what was found.
- *refused*: a typed error, with its message. A question needs one volume of real numbers in known units on a known
  grid, so contents that another reader returns as they are (color, a time series, NaN) are refused as well.
- *wrong without a word*: a volume other than the one that was written, or a volume where none is right (several volumes
  in one, foreign memory), and neither an exception nor a warning nor a line on the error stream. *wrong, with a
  warning*: any of the last two.
- *ends the process*: of Python, with all that it was doing. *hangs*: no reply within {seconds} seconds.
- The last column compares the volume with that of nibabel, or with pydicom slice by slice: values, and all corners.

MONAI's readers are called by `LoadImage`, each by itself; SimpleITK as its documentation reads a file or a series. They
are readers and no gates: that they return what a file holds is their purpose. NIfTI names no modality: this package is
told `--modality ct`, except in the two rows about units.

Written by `python scripts/reliability_page.py` from `benchmarks/results/reliability.json`, which
`python scripts/reliability_page.py --measure` made with {versions}.
"""


class Child:
    """A process that reads files, replaced when a file ends it."""

    def __init__(self, folder: Path) -> None:
        self._errors = folder / "errors"
        self._target = folder / "read.npz"
        self._process: subprocess.Popen[str] | None = None

    def read(self, reader: str, path: Path, seconds: float = SECONDS) -> tuple[str, bool, tuple[Any, Any] | None]:
        """Return what became of a file, whether anything was said of it, and voxels and affine where it was read."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        said = self._errors.stat().st_size
        process.stdin.write(json.dumps({"reader": reader, "path": str(path), "target": str(self._target)}) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], seconds)[0]:
            self.end()
            return "hangs", False, None
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self._process = None
            return f"ends the process ({signal.Signals(-code).name if code < 0 else code})", False, None
        reply = json.loads(line)
        if reply["error"] is not None:
            return f"error: {reply['error']}", False, None
        with np.load(self._target) as read:
            volume = read["voxels"], read["affine"]
        return "read", bool(reply["warnings"]) or self._errors.stat().st_size > said, volume

    def _start(self) -> subprocess.Popen[str]:
        """Return a new process that has loaded its libraries, which takes long on a busy machine."""
        program = str(Path(__file__).with_name("other_readers.py"))
        with self._errors.open("w") as errors:
            self._process = process = subprocess.Popen(
                [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"{program} did not start: {self._errors.read_text()}")
        return process

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def measure(only: str = "") -> dict[str, Any]:
    """Read every input whose name contains a text; return the results."""
    sys.path.insert(0, str(INPUTS))
    from hostile_inputs import INPUTS as ALL
    from hostile_inputs.case import Truth, same
    from hostile_inputs.reading import outcome

    rows = []
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = Child(Path(scratch))
        for one in tqdm([one for one in ALL if only in one.name], file=sys.stderr):
            with tempfile.TemporaryDirectory() as parent:
                folder = Path(parent) / "input"
                folder.mkdir()
                case = one.make(folder)
                found = {}
                for reader in READERS[one.format]:
                    text, said, volume = child.read(reader, case.path)
                    if volume is not None:
                        fits = case.truth is not None and same(Truth(*volume), case.truth)
                        text = "right" if fits else "wrong, with a warning" if said else "wrong without a word"
                    found[reader] = text
                ours = vars(outcome(one, case))
            rows.append({"name": one.name, "format": one.format, "text": one.text, "readers": found, "ours": ours})
        child.end()
    return {"versions": {name: version(name) for name in PACKAGES}, "rows": rows}


def page(results: dict[str, Any]) -> str:
    """Return the page in Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    text = [HEAD.format(seconds=SECONDS, versions=versions), *_totals(results["rows"])]
    for kind, readers in READERS.items():
        rows = [row for row in results["rows"] if row["format"] == kind]
        oracle = "nibabel" if kind == "NIfTI" else "pydicom"
        text += [f"## {kind}", ""]
        text += ["| input | " + " | ".join(readers) + f" | this package | against {oracle} |"]
        text += ["|---" * (len(readers) + 3) + "|"]
        for row in rows:
            others = [_other(row["readers"][reader]) for reader in readers]
            text.append("| " + " | ".join([row["text"], *others, *_ours(row["ours"])]) + " |")
        text.append("")
    return "\n".join(text).rstrip() + "\n"


def _totals(rows: Sequence[dict[str, Any]]) -> list[str]:
    text = ["| reader | inputs | right | wrong without a word | error, or refused | ends the process, or hangs |"]
    text.append("|---" * 6 + "|")
    for kind, readers in READERS.items():
        own = [row for row in rows if row["format"] == kind]
        for reader in readers:
            found = [row["readers"][reader] for row in own]
            ends = sum(one.startswith(("ends", "hangs")) for one in found)
            errors = sum(one.startswith("error") for one in found)
            wrong = f"{found.count('wrong without a word')}"
            if warned := found.count("wrong, with a warning"):
                wrong += f", {warned} more with a warning"
            text.append(f"| {kind}: {reader} | {len(own)} | {found.count('right')} | {wrong} | {errors} | {ends} |")
        outcomes = [row["ours"]["outcome"] for row in own]
        right = f"{outcomes.count('right') + outcomes.count('noted')}, {outcomes.count('noted')} of them with a note"
        counts = f"{right} | {outcomes.count('wrong')} | {outcomes.count('refused')} | 0"
        text.append(f"| {kind}: this package | {len(own)} | {counts} |")
    return [*text, ""]


def _other(found: str) -> str:
    if found.startswith("error: "):
        return f"error, `{found.removeprefix('error: ')}`"
    return {"wrong without a word": SILENT}.get(found, found)


def _ours(found: dict[str, str]) -> tuple[str, str]:
    message = found["message"].replace("|", "\\|").replace("<", "&lt;")
    if found["outcome"] == "refused":
        return f"refused, `{found['error']}`: {message}", ""
    texts = {"right": "right", "noted": f"right, with a note: {message}", "wrong": SILENT}
    return texts[found["outcome"]], found["round_trip"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. The exit status is 1 if a checked page is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--measure", action="store_true", help="read every input first")
    action.add_argument("--check", action="store_true", help="compare the page with the results")
    parser.add_argument("--only", default="", metavar="NAME", help="measure inputs whose names contain this, and print")
    options = parser.parse_args(arguments)
    if options.only:
        sys.stdout.write(json.dumps(measure(options.only), indent=1) + "\n")
        return 0
    if options.measure:
        RESULTS.write_text(json.dumps(measure(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    wanted = page(json.loads(RESULTS.read_text(encoding="utf-8")))
    if not options.check:
        PAGE.write_text(wanted, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != wanted:
        sys.stderr.write(f"{PAGE.name} is not up to date: run python scripts/reliability_page.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
