# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A MONAI evaluator for questions about volumes, some of which may fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai.engines import SupervisedEvaluator
from monai.utils import CommonKeys

from monai_medpruner.errors import FailedVolumesError, describe_error, ends_run
from monai_medpruner.evaluation.run_means import RunMeans
from monai_medpruner.memory import is_out_of_memory, release_memory
from monai_medpruner.results import StudyAnswers

__all__ = ["FailedVolume", "VolumeEvaluator"]


@dataclass(frozen=True)
class FailedVolume:
    """A volume that could not be read, encoded or asked about.

    Args:
        image: path of the image as given.
        error: class and message of the error.
    """

    image: str
    error: tuple[str, str]


class VolumeEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator``, except that a volume that fails does not end a run.

    The output of an iteration has a :class:`FailedVolume` under "failed" if its volume failed, and then an empty list
    under "pred". A volume fails if the data set returns its error (:class:`~monai_medpruner.data.GuardedDataset`), or
    if the network raises. Errors that concern the whole run, such as a missing checkpoint, end it.

    After each volume ``engine.state.metrics`` has what the run kept and spent so far, where MONAI's TensorBoard and
    MLflow handlers find it: ``retention_slices``, ``retention_tokens`` (fractions, ratios of sums over volumes) and
    ``seconds_STAGE`` (mean per volume).

    Args:
        fail_fast: raise the first error of the network. Batches of several volumes, of which one error would lose all,
            always raise.
        arguments: as in ``SupervisedEvaluator``.
    """

    def __init__(self, *, fail_fast: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.fail_fast = fail_fast
        self.volumes = self.failed = 0
        self._means = RunMeans()

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Run on all volumes.

        Raises:
            FailedVolumesError: volumes failed; raised after the last one.
            MedPrunerError: with ``fail_fast``, or if the error concerns the whole run.
        """
        self.volumes = self.failed = 0
        self._means = RunMeans()
        super().run(global_epoch)
        if self.failed:
            raise FailedVolumesError(f"{self.failed} of {self.volumes} volumes failed; the others were answered")

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Answer the questions about the volumes of a batch."""
        self.volumes += len(batchdata[CommonKeys.IMAGE])
        if "error" in batchdata:
            return self._fail(engine, str(batchdata[CommonKeys.IMAGE][0]), batchdata["error"][0])
        try:
            output = super()._iteration(engine, batchdata)
        except Exception as error:
            if self.fail_fast or len(batchdata[CommonKeys.IMAGE]) > 1 or ends_run(error):
                raise
            if is_out_of_memory(error):
                release_memory()
            return self._fail(engine, _path(batchdata[CommonKeys.IMAGE]), describe_error(error))
        self._count(engine, output)
        return output

    def _count(self, engine: Any, output: Mapping[str, Any]) -> None:
        for study in output[CommonKeys.PRED]:
            if isinstance(study, StudyAnswers):  # not tokens, of a batch without questions
                spent: Counter[str] = Counter(study.record.seconds)
                for answer in study.answers:
                    spent.update(answer.seconds)
                self._means.add(study.record.summary(), spent)
        engine.state.metrics.update(self._means.scalars())

    def _fail(self, engine: Any, image: str, error: tuple[str, str]) -> dict[str, Any]:
        self.failed += 1
        engine.state.output = {CommonKeys.PRED: [], "failed": FailedVolume(image, error)}
        return engine.state.output


def _path(image: Any) -> str:
    """Return the path of a batch's only volume."""
    meta: Mapping[str, Any] = getattr(image, "meta", {})
    found = meta.get("filename_or_obj", "")
    return str(found if isinstance(found, str) else found[0])
