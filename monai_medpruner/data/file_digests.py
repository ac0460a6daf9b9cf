# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The content of a volume's files as one hash, before any voxel is read."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

__all__ = ["FileDigests", "file_digest"]

_BLOCK = 2**20
# a file that changed this short a time ago may change once more without a new time stamp
_SETTLED_SECONDS = 2.0


def file_digest(path: str | os.PathLike[str]) -> str:
    """Hash the files of a volume.

    Args:
        path: a file: its bytes and its suffix count, since the suffix tells the format; its name and place do not. Or a
            folder: the names and bytes of the files directly in it count, in the order of their names, and the number
            of its subfolders, which the reader notes.

    Returns:
        64 hexadecimal digits of SHA-256.

    Raises:
        OSError: a file cannot be read.
    """
    place = Path(path).expanduser()
    total = hashlib.sha256()
    if place.is_dir():
        folders = sum(one.is_dir() for one in place.iterdir())
        total.update(f"folder {folders}\n".encode())
        for file in _files(place):
            total.update(f"{_bytes_digest(file)} {file.name}\n".encode(errors="surrogateescape"))
    else:
        name = place.name.lower()
        kind = ".nii.gz" if name.endswith(".nii.gz") else place.suffix.lower()
        total.update(f"file {kind}\n{_bytes_digest(place)}\n".encode())
    return total.hexdigest()


class FileDigests:
    """:func:`file_digest`, remembered for files that have not changed since; safe for several threads.

    Whether a file changed is told by its size, inode and times, as build tools do. Files that changed in the last two
    seconds are hashed again each time.

    Args:
        limit: number of digests that are remembered.
    """

    def __init__(self, limit: int = 1024) -> None:
        self.limit = limit
        self._known: OrderedDict[tuple[str, tuple], str] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, path: str | os.PathLike[str]) -> str:
        """Return :func:`file_digest` of a path.

        Raises:
            OSError: a file cannot be read.
        """
        place = Path(path).expanduser().resolve()
        facts = _facts(place)
        with self._lock:
            if (place.as_posix(), facts) in self._known:
                self._known.move_to_end((place.as_posix(), facts))
                return self._known[place.as_posix(), facts]
        digest = file_digest(place)
        changed = max((max(one[3], one[4]) for one in facts), default=0) / 1e9
        if _facts(place) == facts and abs(time.time() - changed) > _SETTLED_SECONDS:
            with self._lock:
                self._known[place.as_posix(), facts] = digest
                while len(self._known) > self.limit:
                    self._known.popitem(last=False)
        return digest


def _facts(place: Path) -> tuple[tuple[str, int, int, int, int], ...]:
    """What changes with the content of a file, or of a folder's files."""
    entries: Sequence[Path] = sorted(place.iterdir()) if place.is_dir() else [place]
    facts = []
    for entry in entries:
        status = entry.stat()
        facts.append((entry.name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(facts)


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_file())


def _bytes_digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
