# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Files that are whole or absent, whenever a run is cut off."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["atomic_write"]


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file under another name first, so that no reader ever sees a part of it.

    Processes that write the same file at once do not meet: the last one's content stays. What a process was killed
    over stays beside it, as ``<name>.<process>.part``.

    Args:
        path: in a folder that exists; replaced where it exists.
        content: of the file.

    Raises:
        OSError: the file cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
