# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Seconds per processing stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

import torch

__all__ = ["STAGES", "StageTimes", "synchronize"]

#: the processing stages of a study, in order
STAGES = ("load", "filter", "encode", "select", "prefill", "decode")


class StageTimes(dict[str, float]):
    """Seconds per stage. The times of a stage that runs several times are summed."""

    @contextmanager
    def stage(self, name: str, device: torch.device | None = None) -> Iterator[None]:
        """Add the time of the block to a stage, including work queued on a GPU."""
        start = perf_counter()
        try:
            yield
            synchronize(device)
        finally:
            self.add({name: perf_counter() - start})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add the times of some stages."""
        for name, spent in seconds.items():
            self[name] = self.get(name, 0.0) + spent


def synchronize(device: torch.device | None) -> None:
    """Wait for the work queued on a CUDA device. Does nothing for other devices."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
