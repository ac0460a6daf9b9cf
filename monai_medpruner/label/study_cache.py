# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Studies that were encoded, kept for further questions."""

from __future__ import annotations

from collections import OrderedDict

from monai_medpruner.networks import EncodedStudy

__all__ = ["StudyCache"]


class StudyCache:
    """The studies that were asked about last, as many as fit into a number of bytes.

    Not locked: the model's owner lets one thread in at a time.

    Args:
        limit: bytes of the tokens of all studies together; a study with more than that is not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._studies: OrderedDict[tuple[str, ...], EncodedStudy] = OrderedDict()

    def __len__(self) -> int:
        return len(self._studies)

    @property
    def size(self) -> int:
        """Bytes of the tokens that are kept."""
        return sum(study.tensor_bytes for study in self._studies.values())

    def get(self, key: tuple[str, ...]) -> EncodedStudy | None:
        """The study of a key, now the one used last; None where it is not there."""
        if key in self._studies:
            self._studies.move_to_end(key)
        return self._studies.get(key)

    def put(self, key: tuple[str, ...], study: EncodedStudy) -> None:
        """Keep a study, and drop the least recently used ones until all fit."""
        if study.tensor_bytes > self.limit:
            return
        self._studies[key] = study
        self._studies.move_to_end(key)
        while self.size > self.limit:
            self._studies.popitem(last=False)
