# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""An encoded study: all that a language engine needs, in this process or in another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch

from monai_medpruner.networks.encoding import PrunedSlices
from monai_medpruner.networks.scored_slices import ScoredSlices
from monai_medpruner.pruners import TokenPruner
from monai_medpruner.results import StageTimes, StudyRecord

__all__ = ["EncodedStudy", "StudyKey"]


@dataclass(frozen=True)
class StudyKey:
    """What an encoded study was made from; equal keys mean equal tokens on the same kind of device.

    Args:
        volume: hash of the volume's content.
        preprocessing: description of what was done to the volume, as JSON; where it is not known, ``volume`` is the
            hash of the preprocessed voxels.
        model: description of the encoder, as JSON: checkpoint, revision, and how slices become its input.
        pruner: description of the pruner, as JSON; "null" for none.
        dtype: of the encoder's weights.
        question: hash of the question for a pruner that needs it; None for any other.
        budget: description of the token budget, as JSON; "null" for none.
    """

    volume: str
    preprocessing: str
    model: str
    pruner: str
    dtype: str
    question: str | None = None
    budget: str = "null"

    @property
    def digest(self) -> str:
        """64 hexadecimal digits of SHA-256, for the name of a file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def for_question(self, question: str) -> StudyKey:
        """The key of the same study, pruned for a question."""
        return replace(self, question=hashlib.sha256(question.encode()).hexdigest())


@dataclass(frozen=True, eq=False)
class EncodedStudy:
    """A study whose slices are encoded and pruned, ready for questions.

    Args:
        key: what it was made from.
        record: what was kept; its slices hold the grid of each slice and the places of its kept tokens.
        tokens: per kept slice, the projected tokens that are kept, ``(K_i, C)``.
        deepstack_features: per layer and slice, the DeepStack rows that go with them; empty where there are none.
        preserve_position_ids: whether kept tokens keep the positions that they have in the unpruned prompt, or are
            renumbered without gaps; None takes the model family's default.
        pending: the pruner that needs the question, and the slices as it will get them: until then every token is
            kept. None for any other pruner.
    """

    key: StudyKey
    record: StudyRecord
    tokens: tuple[torch.Tensor, ...]
    deepstack_features: tuple[tuple[torch.Tensor, ...], ...] = ()
    preserve_position_ids: bool | None = None
    pending: tuple[TokenPruner, ScoredSlices] | None = None

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Per kept slice, rows and columns of its tokens before pruning."""
        return [one.grid for one in self.record.slices]

    @property
    def places(self) -> list[torch.Tensor]:
        """Per kept slice, the indices of its kept tokens among all of its tokens, int64 ``(K_i,)``, ascending."""
        return [one.keep.nonzero().flatten() for one in self.record.slices]

    @property
    def slices(self) -> PrunedSlices:
        """The tokens as :meth:`PrunedVLM.generate <monai_medpruner.networks.PrunedVLM.generate>` takes them."""
        return PrunedSlices(
            tokens=list(self.tokens),
            deepstack_features=[list(layer) for layer in self.deepstack_features],
            records=list(self.record.slices),
            seconds=StageTimes(),
        )

    @property
    def tensor_bytes(self) -> int:
        """Bytes of tokens and DeepStack rows; the slices of a batch are views of one storage, which counts once."""
        tensors = [*self.tokens, *(rows for layer in self.deepstack_features for rows in layer)]
        storages = {tensor.data_ptr(): tensor for tensor in map(torch.Tensor.untyped_storage, tensors)}
        return sum(storage.nbytes() for storage in storages.values())

    def of_slices(self, indices: Sequence[int]) -> EncodedStudy:
        """The same study with some of its kept slices alone; tokens are shared, not copied.

        Args:
            indices: of slices of the volume that are among the kept ones.
        """
        places = [self.record.slice_indices.index(index) for index in indices]
        record = replace(
            self.record, slice_indices=tuple(indices), slices=tuple(self.record.slices[place] for place in places)
        )
        return replace(
            self,
            record=record,
            tokens=tuple(self.tokens[place] for place in places),
            deepstack_features=tuple(tuple(layer[place] for place in places) for layer in self.deepstack_features),
        )
