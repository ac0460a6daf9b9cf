# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""How much memory there is, how much was used, and how much a volume may take."""

from __future__ import annotations

import gc
import sys
from math import prod

import psutil
import torch

from monai_medpruner.errors import UnreadableVolumeError

__all__ = [
    "available_memory",
    "check_fits_memory",
    "free_memory",
    "is_out_of_memory",
    "peak_memory",
    "release_memory",
]


def available_memory() -> int:
    """Return the bytes of main memory that can be had without swapping."""
    return psutil.virtual_memory().available


def free_memory(device: torch.device) -> int | None:
    """Return the bytes free on a device, or None where that cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory() if device.type == "cpu" else None


def peak_memory() -> int:
    """Return the peak bytes allocated on the GPU since its statistics were reset; without one, the process's peak."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows; psutil tells no peak elsewhere

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def check_fits_memory(shape: tuple[int, ...], bytes_per_voxel: int) -> None:
    """Refuse a volume that main memory cannot hold, before any of it is allocated.

    Args:
        shape: number of voxels along each axis, as the header declares it.
        bytes_per_voxel: bytes that reading needs at its peak, per voxel.

    Raises:
        UnreadableVolumeError: if the declared volume needs more than the available memory.
    """
    sizes = [int(size) for size in shape]  # numpy's integers would overflow
    needed, available = bytes_per_voxel * prod(sizes), available_memory()
    if needed > available:
        raise UnreadableVolumeError(
            f"the header declares a volume of {' x '.join(map(str, sizes))} voxels, which needs "
            f"{needed / 2**30:.1f} GiB to read; {available / 2**30:.1f} GiB of memory are available. "
            "If the volume is not that large, the header is damaged."
        )


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
