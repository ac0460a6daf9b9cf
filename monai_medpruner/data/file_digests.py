# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The content of a volume's files as one hash, before any voxel is read."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path

from monai_medpruner.data.series_files import is_media_directory, series_files

__all__ = ["FileDigests", "file_digest"]

_BLOCK = 2**20
# a file that changed this short a time ago may change once more without a new time stamp
_SETTLED_SECONDS = 2.0


def file_digest(path: str | os.PathLike[str]) -> str:
    """Hash the files of a volume.

    Args:
        path: a file: its bytes and its suffix count, since the suffix tells the format; its name and place do not. Or a
            folder, also by the DICOMDIR in it: the names and bytes of the files that the reader looks at count, in the
            order of their names, those in subfolders where it searches these, and the number of its subfolders.

    Returns:
        64 hexadecimal digits of SHA-256.

    Raises:
        OSError: a file cannot be read.
    """
    place = Path(path).expanduser()
    total = hashlib.sha256()
    folder = place if place.is_dir() else place.parent if is_media_directory(place) else None
    if folder is not None:
        folders = sum(one.is_dir() for one in folder.iterdir())
        total.update(f"folder {folders}\n".encode())
        for file in series_files(folder)[0]:
            name = file.relative_to(folder).as_posix()
            total.update(f"{_bytes_digest(file)} {name}\n".encode(errors="surrogateescape"))
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
    entries: list[Path] = [place]
    if place.is_dir() or is_media_directory(place):
        folder = place if place.is_dir() else place.parent
        # a file that is added to a folder below changes the time of that folder
        entries = [*sorted(folder.iterdir()), *series_files(folder)[0]]
    facts = []
    for entry in dict.fromkeys(entries):
        status = entry.stat()
        facts.append((entry.as_posix(), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(facts)


def _bytes_digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
