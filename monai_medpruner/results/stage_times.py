# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Seconds per stage of work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

import torch

__all__ = ["STAGES", "StageTimes", "synchronize"]

#: the stages of work on a study, in order
STAGES = ("load", "filter", "encode", "select", "prefill", "decode")


class StageTimes(dict[str, float]):
    """Seconds per stage; a stage that is entered several times adds up."""

    @contextmanager
    def stage(self, name: str, device: torch.device | None = None) -> Iterator[None]:
        """Add the time of the block to a stage, work queued on a GPU included."""
        start = perf_counter()
        try:
            yield
            synchronize(device)
        finally:
            self.add({name: perf_counter() - start})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add the times of some stages to those that are there."""
        for name, spent in seconds.items():
            self[name] = self.get(name, 0.0) + spent


def synchronize(device: torch.device | None) -> None:
    """Wait for the work queued on a CUDA device; other devices need no waiting."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
