# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Run an evaluation, kill it repeatedly at a random item, then run it to the end. Runs as a separate process.

The libraries are imported once; each run is a forked process, ended by SIGKILL as soon as the file of predictions has
grown by a random number of bytes, so that a line may be cut in two.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
from pathlib import Path


def wait_for_growth(process, file, size):
    """Return whether a file reached a size while a process was running."""
    while process.is_alive():
        if file.exists() and file.stat().st_size >= size:
            return True
        time.sleep(0.001)
    return False


def cut_last_line(file, generator):
    """Truncate the last line, as after a loss of power."""
    content = file.read_bytes()
    last = len(content.splitlines(keepends=True)[-1])
    file.write_bytes(content[: len(content) - generator.randrange(1, last)])


def main(arguments, kills, total, seed):
    import torch
    from monai.bundle import run

    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    generator = random.Random(seed)
    file = Path(arguments["output_dir"]) / "predictions.jsonl"
    counts = []
    while len(counts) < kills:
        process = fork.Process(target=run, kwargs=arguments)
        before = file.stat().st_size if file.exists() else 0
        process.start()
        if not wait_for_growth(process, file, before + generator.randrange(1, 6000)):
            raise SystemExit(f"run {len(counts)} ended by itself with {counts}")
        process.kill()
        process.join()
        counts.append(file.read_bytes().count(b"\n"))
        if counts[-1] >= total:
            raise SystemExit("nothing is left to kill")
        if len(counts) % 3 == 0:
            cut_last_line(file, generator)
    process = fork.Process(target=run, kwargs=arguments)
    process.start()
    process.join()
    sys.stdout.write(json.dumps({"counts": counts, "exit": process.exitcode}) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), *map(int, sys.argv[2:]))
