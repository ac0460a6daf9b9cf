# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Atomic file writes."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from monai_medpruner.errors import OutputFolderError

__all__ = ["atomic_write", "remove_parts"]

_PART = re.compile(r".+\.\d+\.part")


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file atomically: readers never see a partial file.

    The content is written to ``<name>.<process id>.part`` and then renamed. If several processes write the same file,
    the last one wins. A process that is killed while writing leaves its ``.part`` file behind; see
    :func:`remove_parts`.

    Args:
        path: file in an existing folder; an existing file is replaced.
        content: content of the file.

    Raises:
        OutputFolderError: the file cannot be written; an existing file is as it was.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if not isinstance(error, OSError):
            raise
        raise OutputFolderError(f"cannot write {path}: {error.strerror or error}") from error


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed left of their writes. Call it while no other process writes there.

    Args:
        folder: an existing folder.
    """
    for path in folder.iterdir():
        if _PART.fullmatch(path.name):
            path.unlink(missing_ok=True)
