# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Peak memory of some work, beyond what was allocated before it."""

from __future__ import annotations

import ctypes
import sys
import threading
from types import TracebackType

import psutil
import torch

from monai_medpruner.memory import release_memory

__all__ = ["PeakMemory"]

_PAUSE_S = 0.005


class PeakMemory:
    """Context manager that measures the peak memory of its block.

    On a GPU these are the bytes that PyTorch allocates there. On a CPU it is the process's resident memory, read every
    5 ms by a thread; memory that was freed before is given back to the system first, as far as it lets itself.

    Args:
        device: on which the work runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        #: bytes beyond those at the beginning of the block
        self.bytes = 0
        self._before = 0
        self._peak = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        release_memory()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
            return self
        _trim()
        self._before = self._peak = psutil.Process().memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            self._peak = torch.cuda.max_memory_allocated(self.device)
        else:
            self._over.set()
            self._thread.join()
        self.bytes = max(0, self._peak - self._before)

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self._peak = max(self._peak, process.memory_info().rss)
            if self._over.wait(_PAUSE_S):
                return


def _trim() -> None:
    """Have the C library give freed memory back to the system, where it can be asked to."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
