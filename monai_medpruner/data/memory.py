# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""How much memory a volume may take."""

from __future__ import annotations

from monai_medpruner.errors import UnreadableVolumeError
from monai_medpruner.memory import available_memory

__all__ = ["check_fits_memory"]


def check_fits_memory(shape: tuple[int, ...], bytes_per_voxel: int) -> None:
    """Refuse a volume that main memory cannot hold, before any of it is allocated.

    Args:
        shape: number of voxels along each axis, as the header declares it.
        bytes_per_voxel: bytes that reading needs at its peak, per voxel.

    Raises:
        UnreadableVolumeError: if the declared volume needs more than the available memory.
    """
    needed = bytes_per_voxel
    for size in shape:
        needed *= int(size)
    available = available_memory()
    if available is not None and needed > available:
        raise UnreadableVolumeError(
            f"the header declares a volume of {' x '.join(str(int(size)) for size in shape)} voxels, which needs "
            f"{needed / 2**30:.1f} GiB to read; {available / 2**30:.1f} GiB of memory are available. "
            "If the volume is not that large, the header is damaged."
        )
