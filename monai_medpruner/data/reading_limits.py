# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The largest volume that is read, whatever memory there is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from monai_medpruner.errors import SettingsError, VolumeLimitError

__all__ = ["ReadingLimits"]


@dataclass(frozen=True)
class ReadingLimits:
    """Limits of a volume, checked by its header before its voxels are read.

    They protect from damaged headers and from files made to fill a memory. They are no part of a study's key or record,
    since they do not change a volume.

    Args:
        voxels: of a volume, all channels together.
        slices: of a volume; also bounds rows and columns, since a header does not always say which axis is which.
        gib: size in GiB of a compressed file when it is decompressed, to its end.

    Raises:
        SettingsError: a limit is not positive.
    """

    voxels: int = 1_000_000_000
    slices: int = 5_000
    gib: float = 16.0

    def __post_init__(self) -> None:
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise SettingsError(f"limit_{name} must be a positive number, got {value!r}")

    @property
    def bytes(self) -> int:
        """The limit of a decompressed file in bytes."""
        return int(self.gib * 2**30)

    def check(self, shape: Sequence[int], name: str) -> None:
        """Refuse a volume that is too large.

        Args:
            shape: number of voxels along each axis, as the header declares it.
            name: of the file or folder, for the message.

        Raises:
            VolumeLimitError: it has more voxels, or is longer along an axis, than allowed.
        """
        sizes = [int(size) for size in shape]  # numpy's integers would overflow
        declared = f"{name}: the header declares {' x '.join(map(str, sizes))} voxels"
        if math.prod(sizes) > self.voxels:
            raise VolumeLimitError(
                f"{declared}, {math.prod(sizes):,}; at most {self.voxels:,} are read. If the volume is that large, "
                "raise limit_voxels; else the header is damaged"
            )
        if max(sizes, default=0) > self.slices:
            raise VolumeLimitError(
                f"{declared}; at most {self.slices:,} slices, rows or columns are read. If the volume is that large, "
                "raise limit_slices; else the header is damaged"
            )

    def check_bytes(self, count: int, name: str) -> None:
        """Refuse a compressed file that is too large when it is decompressed.

        Raises:
            VolumeLimitError: it has more bytes than allowed.
        """
        if count > self.bytes:
            raise VolumeLimitError(
                f"{name} is larger than {self.gib:g} GiB when it is decompressed. If it should be that large, raise "
                "limit_gib; else the file is damaged, or made to fill the memory"
            )
