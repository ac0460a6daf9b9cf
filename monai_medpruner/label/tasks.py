# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The tasks of the server: ``ask``, ``report`` and ``pruning_overlay``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from monai_medpruner.label.overlay import OVERLAY_LABELS
from monai_medpruner.label.parameters import ask_parameters, overlay_parameters, report_parameters
from monai_medpruner.label.study_model import StudyModel
from monai_medpruner.metrics import find_protocol

__all__ = ["AskTask", "OverlayTask", "ReportTask", "StudyTask"]

#: MedUniEval's prompt, which is used to compare 3-D reports of these model families
REPORT_PROMPT = str(find_protocol("meduni-report").report_prompt)


class StudyTask(InferTask):
    """Base class of the tasks, which share one model.

    Args:
        model: model shared by all tasks.
        type: category under which viewers list the task.
        labels: labels of the label map that the task returns, if any.
        description: description shown by viewers.
    """

    def __init__(self, model: StudyModel, type: InferType, labels: dict[str, int] | None, description: str) -> None:
        # viewers let the user change these settings and send them with requests
        super().__init__(type=type, labels=labels, dimension=3, description=description, config=model.adjustable)
        self.model = model

    def is_valid(self) -> bool:
        """Whether viewers may list the task."""
        return True

    @abstractmethod
    def check(self, params: Mapping[str, Any]) -> Any:
        """Validate and return the parameters of a request.

        Raises:
            RequestError: a parameter is invalid.
        """

    @abstractmethod
    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Run the task.

        Args:
            request: ``study`` (:class:`~monai_medpruner.label.studies.Study`), ``params`` from :meth:`check`, and
                ``result_dir``, a folder for output files.

        Returns:
            The file of a label map or None, and the answer.
        """


class AskTask(StudyTask):
    """Answers a question; parameters: ``question`` and ``history``."""

    def __init__(self, model: StudyModel) -> None:
        super().__init__(model, InferType.OTHERS, None, "Ask about the study: params {question, history}")

    def check(self, params: Mapping[str, Any]) -> Any:
        """See :func:`ask_parameters`."""
        return ask_parameters(params)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Return None for the file, and the answer."""
        study, params = request["study"], request["params"]
        return None, self.model.ask(study, params.question, params.history, params.settings)


class ReportTask(StudyTask):
    """Writes a report with findings and impression; no parameters."""

    def __init__(self, model: StudyModel) -> None:
        super().__init__(model, InferType.OTHERS, None, "Report on the study: findings and impression")

    def check(self, params: Mapping[str, Any]) -> Any:
        """See :func:`report_parameters`."""
        return report_parameters(params)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Return None for the file, and the report as ``answer``, with its ``prompt`` and length limit."""
        study = request["study"]
        limit = self.model.network.report_tokens
        answer = self.model.ask(study, REPORT_PROMPT, settings=request["params"], max_new_tokens=limit)
        return None, {"prompt": REPORT_PROMPT, "report_tokens": limit, **answer}


class OverlayTask(StudyTask):
    """Returns kept slices and tokens as a label map; its type is "segmentation" so that viewers list it."""

    def __init__(self, model: StudyModel) -> None:
        super().__init__(
            model, InferType.SEGMENTATION, dict(OVERLAY_LABELS), "What the model saw: kept slices and tokens"
        )

    def check(self, params: Mapping[str, Any]) -> Any:
        """See :func:`overlay_parameters`."""
        return overlay_parameters(params)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Return the file of the label map, and a description of the pruning."""
        study = request["study"]
        file, described = self.model.write_overlay(study, request["params"], request["result_dir"])
        return str(file), described
