# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Encoded studies kept for further questions, in memory and on disk."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

from monai_medpruner.errors import EncodedStudyError, SettingsError
from monai_medpruner.networks.cache_folder import CacheFolder
from monai_medpruner.networks.encoded_study import EncodedStudy
from monai_medpruner.networks.study_key import StudyKey
from monai_medpruner.terminal_text import package_logger

__all__ = ["StudyCache", "open_study_cache"]

logger = package_logger(__name__)

#: note in the record of a study that comes from the disk
EARLIER_RUN = "encoded in an earlier run; slices and tokens come from the study cache"


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
        self.files = None if folder is None else CacheFolder(folder, disk_bytes)
        self.memory_bytes = memory_bytes
        self._studies: OrderedDict[str, EncodedStudy] = OrderedDict()
        self._lock = threading.Lock()

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
        if self.files is not None and study.pending is None:
            anonymous = replace(study, record=replace(study.record, image=""))
            self.files.write(self.files.file(study.key.digest), anonymous.save)

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

    def _read(self, key: StudyKey) -> EncodedStudy | None:
        if self.files is None:
            return None
        path = self.files.file(key.digest)
        try:
            study = EncodedStudy.load(path)
            if study.key != key:
                raise EncodedStudyError(f"{path.name} holds another study than its name says")
        except FileNotFoundError:
            return None
        except OSError as error:  # EncodedStudyError is one
            logger.warning("a file of the study cache is not used, its study is encoded again: %s", error)
            return None
        self.files.mark_used(path)
        record = study.record
        return replace(study, record=replace(record, seconds={}, notes=(*record.notes, EARLIER_RUN)))


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
