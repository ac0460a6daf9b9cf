# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Stages that load no model and tell when they work; imported by Ray's processes."""

from __future__ import annotations

import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np

from monai_medpruner.errors import EngineUnreachableError

BYTES = 2**20  # of a study between reading and encoding
POISON = "3"


class _Stage:
    name = ""  # Ray calls a subclass
    seconds = 0.01

    def __init__(self, log):
        self.log = Path(log)

    def __call__(self, row):
        identity = pickle.loads(row["rest"])["items"][0]["id"]
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{self.name} {identity}\n")
        time.sleep(self.seconds)
        return {**row, "levels": self.levels()}

    def levels(self):
        return np.empty(0, np.uint8)


class Read(_Stage):
    name = "read"

    def levels(self):
        return np.zeros((BYTES // 2**16, 1, 256, 256), np.uint8)


class Encode(_Stage):
    name = "encode"


class BulkyEncode(Read):
    """Hands on as many bytes as it gets."""

    name = "encode"


class Answer(_Stage):
    name = "answer"


class SlowAnswer(Answer):
    seconds = 0.5


class Unreachable(Answer):
    """Meets an error that concerns the whole run."""

    def __call__(self, row):
        row = super().__call__(row)
        rest = {**pickle.loads(row["rest"]), "ends_run": EngineUnreachableError("no answer from the server")}
        return {**row, "rest": pickle.dumps(rest)}


class PoisonedEncode(Encode):
    """Ends its process at one study, as the kernel does where memory runs out."""

    def __call__(self, row):
        row = super().__call__(row)
        if pickle.loads(row["rest"])["items"][0]["id"] == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        return row
