# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A bounded folder of files that can be made again."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from monai_medpruner.errors import OutputFolderError
from monai_medpruner.terminal_text import package_logger

__all__ = ["CacheFolder"]

logger = package_logger(__name__)

_SUFFIX = ".safetensors"
_OWN_NAME = re.compile(rf"[0-9a-f]{{64}}(\.prompt)?{re.escape(_SUFFIX)}")
_OWN_PART = re.compile(rf"{_OWN_NAME.pattern}\.\d+\.part")
# a process holds the lock while it writes one file and removes others
_LOCK_SECONDS = 60.0


class CacheFolder:
    """Files of safetensors by their digests: those used last, as many as fit.

    Several threads and processes may use a folder at once: files are written under a lock. Other files in the folder
    are left alone. The folder is made readable for its owner alone.

    Args:
        path: made where it is missing.
        size_bytes: of all files together.

    Raises:
        OutputFolderError: the folder cannot be made.
    """

    def __init__(self, path: str | Path, size_bytes: int) -> None:
        self.path = Path(path).expanduser()
        self.size_bytes = size_bytes
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OutputFolderError(f"cannot make the cache folder {self.path}: {error.strerror}") from error

    def file(self, digest: str, kind: str = "") -> Path:
        """Where a file is or will be.

        Args:
            digest: 64 hexadecimal digits.
            kind: "" for an encoded study, ".prompt" for the beginning of a prompt.
        """
        return self.path / f"{digest}{kind}{_SUFFIX}"

    def mark_used(self, file: Path) -> None:
        """Make a file the youngest, so that it is removed last."""
        try:
            _touch(file)
        except OSError as error:  # of a folder that others fill, or another process removed the file meanwhile
            logger.debug("the order of use in the cache folder is not kept: %s", type(error).__name__)

    def write(self, file: Path, save: Callable[[Path], object]) -> None:
        """Write a file, and remove the least recently used ones until all fit.

        What cannot be written is left out, with a warning; so is a file larger than the folder may be.

        Args:
            file: of :meth:`file`.
            save: writes it whole, or not at all.
        """
        try:
            with FileLock(self.path / ".lock", timeout=_LOCK_SECONDS):
                # nobody else writes now: such a part was left by a process that was killed
                for part in self.path.iterdir():
                    if _OWN_PART.fullmatch(part.name):
                        part.unlink(missing_ok=True)
                save(file)
                if file.stat().st_size > self.size_bytes:
                    file.unlink()  # it would drive all others out
                else:
                    _touch(file)
                self._evict()
        except (OSError, Timeout) as error:
            logger.warning("a file was not written to the cache folder: %s", type(error).__name__)

    def _evict(self) -> None:
        """Remove the files used least recently until the others fit."""
        files = []
        for path in self.path.iterdir():
            if _OWN_NAME.fullmatch(path.name):
                status = path.stat()
                files.append((status.st_mtime_ns, path.name, status.st_size))
        size = sum(one[2] for one in files)
        for _, name, bytes_of_file in sorted(files):
            if size <= self.size_bytes:
                return
            (self.path / name).unlink(missing_ok=True)
            size -= bytes_of_file


def _touch(path: Path) -> None:
    """Make a file the youngest; the file system's own clock is too coarse for files that follow each other."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))
