# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""How much memory there is, and how much was used."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import torch

__all__ = ["available_memory", "free_memory", "is_out_of_memory", "peak_memory", "release_memory"]


def available_memory() -> int | None:
    """Return the bytes of main memory that can be had without swapping, or None where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    names = getattr(os, "sysconf_names", {})  # absent on Windows
    pages = next((name for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES") if name in names), None)
    return None if pages is None else os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def free_memory(device: torch.device) -> int | None:
    """Return the bytes free on a device, or None where that cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory() if device.type == "cpu" else None


def peak_memory() -> int | None:
    """Return the peak bytes allocated on the GPU since its statistics were reset; without one, the process's peak.

    None where the system does not tell.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out, on a GPU or in main memory."""
    # PyTorch's CPU allocator has no exception class of its own
    cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return cpu or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def release_memory() -> None:
    """Give memory that nothing refers to any more back to its device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
