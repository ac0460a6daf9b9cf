# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""An encoded study: all that a language engine needs, in this process or in another one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.errors import EncodedStudyError, SettingsError
from monai_medpruner.networks.pruned_slices import PrunedSlices
from monai_medpruner.networks.scored_slices import ScoredSlices
from monai_medpruner.networks.study_key import StudyKey
from monai_medpruner.pruners import TokenPruner
from monai_medpruner.results import StageTimes, StudyRecord
from monai_medpruner.results.sealed_file import seal_tensors, unseal_tensors

__all__ = ["EncodedStudy"]

_FORMAT = "monai_medpruner.EncodedStudy/1"
_RECORD = "record."


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
        """Bytes of tokens, DeepStack rows and what is pending; views of one storage count once."""
        tensors = [*self.tokens, *(rows for layer in self.deepstack_features for rows in layer)]
        if self.pending is not None:
            scored = self.pending[1]
            tensors += [*scored.encoded.tokens, *scored.encoded.encoder_tokens, *scored.signals.values()]
            tensors += [rows for layer in scored.encoded.deepstack_features for rows in layer]
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

    def to_bytes(self) -> bytes:
        """Return the study as safetensors with a hash of every byte; :meth:`from_bytes` makes a study of them.

        Raises:
            SettingsError: the study waits for a question.
        """
        if self.pending is not None:
            raise SettingsError("a study that waits for its question cannot be saved; save that of for_question")
        packed, facts = self.record.packed()
        tensors = {f"{_RECORD}{name}": one for name, one in packed.items()}
        layers = {f"deepstack.{number}": rows for number, rows in enumerate(self.deepstack_features)}
        for name, rows in {"tokens": self.tokens, **layers}.items():
            tensors[name] = torch.cat(list(rows)).detach().cpu().contiguous()
        described = {
            "format": _FORMAT,
            "key": json.dumps(asdict(self.key)),
            "preserve_position_ids": json.dumps(self.preserve_position_ids),
            "record": json.dumps(facts),
        }
        return seal_tensors(tensors, described)

    @classmethod
    def from_bytes(cls, content: bytes) -> EncodedStudy:
        """Make a study of what :meth:`to_bytes` returned; its tensors lie on the CPU.

        Raises:
            EncodedStudyError: the content is damaged, or is not an encoded study.
        """
        try:
            tensors, described = unseal_tensors(content, _FORMAT)
            key = StudyKey(**json.loads(described["key"]))
            own = {name.removeprefix(_RECORD): one for name, one in tensors.items() if name.startswith(_RECORD)}
            record = StudyRecord.unpacked(own, json.loads(described["record"]))
            counts = record.kept_tokens
            layers = sorted((name for name in tensors if name.startswith("deepstack.")), key=_layer_number)
            return cls(
                key=key,
                record=record,
                tokens=tensors["tokens"].split(counts),
                deepstack_features=tuple(tensors[name].split(counts) for name in layers),
                preserve_position_ids=json.loads(described["preserve_position_ids"]),
            )
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise EncodedStudyError(f"not an encoded study, or a damaged one: {error}") from error

    def save(self, path: str | Path) -> Path:
        """Write the study as safetensors, atomically, with a hash of every byte of the file.

        Raises:
            SettingsError: the study waits for a question.
            OutputFolderError: the file cannot be written.
        """
        target = Path(path)
        atomic_write(target, self.to_bytes())
        return target

    @classmethod
    def load(cls, path: str | Path) -> EncodedStudy:
        """Read a study that :meth:`save` wrote; its tensors lie on the CPU.

        Raises:
            FileNotFoundError: there is no such file.
            EncodedStudyError: the file is damaged, or is not an encoded study.
        """
        try:
            return cls.from_bytes(Path(path).read_bytes())
        except FileNotFoundError:
            raise
        except OSError as error:
            raise EncodedStudyError(f"{Path(path).name} cannot be read as an encoded study: {error}") from error


def _layer_number(name: str) -> int:
    return int(name.rpartition(".")[2])
