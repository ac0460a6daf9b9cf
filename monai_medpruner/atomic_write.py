# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Atomic file writes."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["atomic_write"]


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file atomically: readers never see a partial file.

    The content is written to ``<name>.<process id>.part`` and then renamed. If several processes write the same file,
    the last one wins. A process that is killed while writing leaves its ``.part`` file behind.

    Args:
        path: file in an existing folder; an existing file is replaced.
        content: content of the file.

    Raises:
        OSError: the file cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
