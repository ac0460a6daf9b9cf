# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Run a command with a fault in a process of its own: ``faulty_runs.py FAULT WORD...``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

LINES = 3  # written before the fault


def fault_after(lines, fault):
    """Call a function in place of the next answer once so many lines are written."""
    from monai_medpruner.engines import transformers_engine
    from monai_medpruner.results import lines as writing

    written, append = [], writing.append_line
    answer = transformers_engine.TransformersEngine.generate

    def counted(file, line):
        append(file, line)
        written.append(line)

    def generate(self, *given, **named):
        if len(written) >= lines:
            fault()
        return answer(self, *given, **named)

    for module in list(sys.modules.values()):
        if getattr(module, "append_line", None) is append:
            module.append_line = counted
    transformers_engine.TransformersEngine.generate = generate


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def limit_files():
    """Let no file grow beyond its present size, as a full disk does: the system refuses to write."""
    import resource

    largest = max(path.stat().st_size for path in Path.cwd().rglob("*.jsonl"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 100, resource.RLIM_INFINITY))


def kill_at_rename():
    """End the process between the writing of the next file and its renaming."""
    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    import monai_medpruner.evaluation
    import monai_medpruner.handlers  # noqa: F401
    from monai_medpruner.cli.main import main

    if sys.argv[1] == "kill":
        kill_at_rename()
    else:
        fault_after(LINES, {"terminate": terminate, "full": limit_files}[sys.argv[1]])
    main(sys.argv[2:])
