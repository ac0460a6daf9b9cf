# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Studies that were encoded, kept for further questions."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from monai_medpruner.networks import EncodedVolume

__all__ = ["CachedStudy", "StudyCache"]


@dataclass(frozen=True)
class CachedStudy:
    """An encoded study and what is needed to show on its own grid what was kept; its voxels are gone.

    Args:
        encoded: its pruned tokens and their record.
        slice_size: rows and columns of the slices in voxels.
        meta: of the preprocessed volume.
        seconds: of the stages "load" and "filter".
    """

    encoded: EncodedVolume
    slice_size: tuple[int, int]
    meta: dict[str, Any]
    seconds: dict[str, float]

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the tokens and of the rows that go with them; slices of a batch are views of one storage."""
        slices = self.encoded.slices
        tensors = [*slices.tokens, *(row for layer in slices.deepstack_features for row in layer)]
        storages = {tensor.data_ptr(): tensor for tensor in map(torch.Tensor.untyped_storage, tensors)}
        return sum(storage.nbytes() for storage in storages.values())


class StudyCache:
    """The studies that were asked about last, as many as fit into a number of bytes.

    Not locked: the model's owner lets one thread in at a time.

    Args:
        limit: bytes of the tokens of all studies together; a study with more than that is not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._studies: OrderedDict[tuple[str, ...], CachedStudy] = OrderedDict()

    def __len__(self) -> int:
        return len(self._studies)

    @property
    def size(self) -> int:
        """Bytes of the tokens that are kept."""
        return sum(study.tensor_bytes for study in self._studies.values())

    def get(self, key: tuple[str, ...]) -> CachedStudy | None:
        """The study of a key, now the one used last; None where it is not there."""
        if key in self._studies:
            self._studies.move_to_end(key)
        return self._studies.get(key)

    def put(self, key: tuple[str, ...], study: CachedStudy) -> None:
        """Keep a study, and drop those that were not asked about for longest."""
        if study.tensor_bytes > self.limit:
            return
        self._studies[key] = study
        self._studies.move_to_end(key)
        while self.size > self.limit:
            self._studies.popitem(last=False)
