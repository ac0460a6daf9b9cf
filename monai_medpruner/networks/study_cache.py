# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Encoded studies kept for further questions, in memory and on disk."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from monai_medpruner.errors import EncodedStudyError, OutputFolderError, SettingsError
from monai_medpruner.networks.encoded_study import EncodedStudy
from monai_medpruner.networks.study_key import StudyKey

__all__ = ["StudyCache", "open_study_cache"]

logger = logging.getLogger(__name__)

#: note in the record of a study that comes from the disk
EARLIER_RUN = "encoded in an earlier run; slices and tokens come from the study cache"
_SUFFIX = ".safetensors"
_OWN_NAME = re.compile(rf"[0-9a-f]{{64}}{re.escape(_SUFFIX)}")
_OWN_PART = re.compile(rf"[0-9a-f]{{64}}{re.escape(_SUFFIX)}\.\d+\.part")
# a process holds the lock while it writes one file and removes others
_LOCK_SECONDS = 60.0


class StudyCache:
    """Encoded studies by their keys: those asked about last, as many as fit.

    Each layer is bounded in bytes, and what was used least recently goes first. Several threads and processes may use
    a folder at once: files are written under a lock and appear whole. A file that is damaged, or is not what its name
    says, counts as absent, with a warning, and is replaced when its study is encoded again. Other files in the folder
    are left alone.

    A file holds the kept tokens and the study's record without the path of the image. Tokens are made of a patient's
    images: the folder is made readable for its owner alone. A study that waits for its question is kept in memory only.

    Args:
        folder: made where it is missing; None keeps studies in memory only.
        disk_bytes: of all files together.
        memory_bytes: of the tensors of all studies in memory.

    Raises:
        OutputFolderError: the folder cannot be made.
    """

    def __init__(
        self, folder: str | Path | None = None, *, disk_bytes: int = 10 * 10**9, memory_bytes: int = 2**30
    ) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()
        self.disk_bytes = disk_bytes
        self.memory_bytes = memory_bytes
        self._studies: OrderedDict[str, EncodedStudy] = OrderedDict()
        self._lock = threading.Lock()
        if self.folder is not None:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise OutputFolderError(f"cannot make the cache folder {self.folder}: {error.strerror}") from error

    def get(self, key: StudyKey) -> EncodedStudy | None:
        """Return the study of a key, now the one used last; None where it is not there.

        One from the disk has no seconds in its record, and a note that says where it comes from.
        """
        digest = key.digest
        with self._lock:
            if digest in self._studies:
                self._studies.move_to_end(digest)
                return self._studies[digest]
        study = self._read(key)
        if study is not None:
            self._remember(digest, study)
        return study

    def put(self, study: EncodedStudy) -> None:
        """Keep a study, and drop the least recently used ones until all fit.

        What cannot be written is kept in memory only, with a warning.
        """
        self._remember(study.key.digest, study)
        if self.folder is None or study.pending is not None:
            return
        try:
            self._write(self.folder, study)
        except (OSError, Timeout) as error:
            logger.warning("a study was not written to the cache folder: %s", type(error).__name__)

    @property
    def memory_size(self) -> int:
        """Bytes of the tensors that are kept in memory."""
        with self._lock:
            return sum(study.tensor_bytes for study in self._studies.values())

    @property
    def memory_count(self) -> int:
        """Number of studies in memory."""
        return len(self._studies)

    def forget_memory(self) -> None:
        """Drop every study in memory; files stay."""
        with self._lock:
            self._studies.clear()

    def _remember(self, digest: str, study: EncodedStudy) -> None:
        if study.tensor_bytes > self.memory_bytes:
            return
        with self._lock:
            self._studies[digest] = study
            self._studies.move_to_end(digest)
            size = sum(one.tensor_bytes for one in self._studies.values())
            while size > self.memory_bytes:
                size -= self._studies.popitem(last=False)[1].tensor_bytes

    def _path(self, folder: Path, key: StudyKey) -> Path:
        return folder / f"{key.digest}{_SUFFIX}"

    def _read(self, key: StudyKey) -> EncodedStudy | None:
        if self.folder is None:
            return None
        path = self._path(self.folder, key)
        try:
            study = EncodedStudy.load(path)
            if study.key != key:
                raise EncodedStudyError(f"{path.name} holds another study than its name says")
        except FileNotFoundError:
            return None
        except OSError as error:  # EncodedStudyError is one
            logger.warning("a file of the study cache is not used, its study is encoded again: %s", error)
            return None
        try:
            _mark_used(path)
        except OSError as error:  # of a folder that others fill, or another process removed the file meanwhile
            logger.debug("the order of use in the study cache is not kept: %s", type(error).__name__)
        record = study.record
        return replace(study, record=replace(record, seconds={}, notes=(*record.notes, EARLIER_RUN)))

    def _write(self, folder: Path, study: EncodedStudy) -> None:
        path = self._path(folder, study.key)
        with FileLock(folder / ".lock", timeout=_LOCK_SECONDS):
            # nobody else writes now: such a part was left by a process that was killed
            for part in folder.iterdir():
                if _OWN_PART.fullmatch(part.name):
                    part.unlink(missing_ok=True)
            replace(study, record=replace(study.record, image="")).save(path)
            if path.stat().st_size > self.disk_bytes:
                path.unlink()  # it would drive all others out
            else:
                _mark_used(path)
            self._evict(folder)

    def _evict(self, folder: Path) -> None:
        """Remove the files used least recently until the others fit."""
        files = []
        for path in folder.iterdir():
            if _OWN_NAME.fullmatch(path.name):
                status = path.stat()
                files.append((status.st_mtime_ns, path.name, status.st_size))
        size = sum(one[2] for one in files)
        for _, name, bytes_of_file in sorted(files):
            if size <= self.disk_bytes:
                return
            (folder / name).unlink(missing_ok=True)
            size -= bytes_of_file


def open_study_cache(folder: str | Path | None, size_gb: float) -> StudyCache | None:
    """Return the cache of a configuration; None where it names no folder.

    Args:
        folder: of the cache.
        size_gb: of the folder, in 10**9 bytes.

    Raises:
        SettingsError: the size is negative or no number.
        OutputFolderError: the folder cannot be made.
    """
    if folder is None:
        return None
    if isinstance(size_gb, bool) or not isinstance(size_gb, (int, float)) or not size_gb >= 0:
        raise SettingsError(f"the size of a study cache must be a number of GB, 0 or more, got {size_gb!r}")
    return StudyCache(folder, disk_bytes=int(size_gb * 10**9))


def _mark_used(path: Path) -> None:
    """Make a file the youngest; the file system's own clock is too coarse for files that follow each other."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))
