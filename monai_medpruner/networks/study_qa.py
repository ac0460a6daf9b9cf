# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Questions about a study that come one after another: it is encoded once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from monai_medpruner.networks.encoding import PrunedSlices
from monai_medpruner.networks.record import StageTimes, VolumeRecord
from monai_medpruner.networks.volume_qa import VolumeQA

__all__ = ["EncodedStudy", "StudyQA"]


@dataclass(frozen=True)
class EncodedStudy:
    """A volume's pruned tokens, ready for any number of questions.

    Args:
        slices: what reaches the language model.
        record: what was kept; its ``seconds`` hold one entry, the stages "encode" and "select".
    """

    slices: PrunedSlices
    record: VolumeRecord

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the tokens and of the rows that go with them."""
        tensors = [*self.slices.tokens, *(row for layer in self.slices.side_rows for row in layer)]
        return sum(tensor.untyped_storage().nbytes() for tensor in _distinct(tensors))


class StudyQA(VolumeQA):
    """:class:`VolumeQA` that hands out an encoded volume and answers about it later.

    Both methods use the one model: a caller with several threads lets one at a time in, since some stock models keep
    positions between the steps of an answer.
    """

    @torch.no_grad()
    def encode_study(self, volume: torch.Tensor) -> EncodedStudy:
        """Encode and prune a volume.

        Args:
            volume: shape ``(C, H, W, D)``, otherwise as in :meth:`VolumeQA.forward`.

        Raises:
            IntensityUnitsError: intensities lie outside [0, 1].
        """
        self._last.records = []
        slices = self._encode(volume)
        return EncodedStudy(slices, self.records[0])

    @torch.no_grad()
    def answer(
        self, study: EncodedStudy, question: str, history: Sequence[tuple[str, str]] = ()
    ) -> tuple[str, StageTimes]:
        """Answer a question, or the next one of a conversation.

        Args:
            study: of :meth:`encode_study`; it is encoded no more.
            question: plain text.
            history: earlier questions with their answers, oldest first.

        Returns:
            The answer, and the seconds of "prefill" and "decode" ("encode" and "select" are 0).

        Raises:
            QuestionError: a text is empty, or holds special tokens of the model.
            PromptError: the pruned prompt is longer than the model can read.
        """
        kept = study.record
        record = VolumeRecord(kept.total_slices, kept.slice_indices, kept.slices, [])
        conversation = [text for turn in history for text in turn] + [question]
        text = self._answer(study.slices, record, conversation, first=False)
        return text, record.seconds[0]


def _distinct(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """One tensor of each storage: slices of a batch are views of it."""
    return list({tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}.values())
