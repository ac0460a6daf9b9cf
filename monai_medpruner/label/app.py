# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The MONAI Label app."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp

from monai_medpruner.errors import UnknownTaskError, own_error
from monai_medpruner.label.configuration import configuration
from monai_medpruner.label.server import check_server_version, patch_server, quiet_server_log
from monai_medpruner.label.studies import StudyDatastore, datastore_study, session_study
from monai_medpruner.label.study_model import StudyModel
from monai_medpruner.label.tasks import AskTask, OverlayTask, ReportTask
from monai_medpruner.terminal_text import package_logger

__all__ = ["MedPrunerApp"]

#: fields of a request other than the task's parameters
REQUEST_FIELDS = ("model", "image", "session_id", "file", "result_dir")

logger = package_logger(__name__)


class MedPrunerApp(MONAILabelApp):
    """MONAI Label app for questions, reports and pruning overlays with the model of one bundle.

    Args:
        app_dir: folder of the app.
        studies: folder of the studies, or URL of a DICOMweb server.
        conf: see :func:`~monai_medpruner.label.configuration.configuration`.

    Raises:
        PackageVersionError: MONAI Label has an unsupported version.
        MedPrunerError: a setting or the model is invalid.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        check_server_version()
        quiet_server_log()
        self.model = StudyModel.from_configuration(configuration(conf))
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=dict(conf),
            name="monai_medpruner",
            description="Ask a vision-language model about a study, and see what it saw",
            version=version("monai-medpruner"),
        )
        patch_server(self)

    def init_infers(self) -> dict[str, Any]:
        """Return the tasks by name."""
        return {
            "ask": AskTask(self.model),
            "report": ReportTask(self.model),
            "pruning_overlay": OverlayTask(self.model),
        }

    def init_datastore(self) -> Any:
        """Return a datastore; for local studies, it also lists DICOM folders."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return StudyDatastore(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Run a task.

        Args:
            request: ``model``, the name of the task; ``image``, an id of the datastore, or ``session_id``, or ``file``,
                the path of a file uploaded with the request; ``result_dir``, a folder for output files; and the
                parameters of the task.
            datastore: datastore of the studies; None for that of the app.

        Returns:
            ``params``, the answer, and ``file``, the path of the label map or None, as in the base class.

        Raises:
            RequestError: or a subclass, if the request is invalid.
            MedPrunerError: if the study cannot be processed; messages do not contain its path.
        """
        task = self._infers.get(request.get("model"))
        if task is None:
            raise UnknownTaskError(f"unknown task; expected one of: {', '.join(self._infers)}")
        params = task.check({name: value for name, value in request.items() if name not in REQUEST_FIELDS})
        study = self._study(request, datastore or self.datastore())
        folder = Path(request.get("result_dir") or tempfile.mkdtemp())
        try:
            file, answer = task({"study": study, "params": params, "result_dir": folder})
        except Exception as raised:
            if (error := own_error(raised)) is None:
                raise
            raise type(error)(str(error).replace(str(study), study.name)) from raised
        return {"label": file, "tag": "", "file": file, "params": answer}

    def _study(self, request: Mapping[str, Any], datastore: Any) -> Path:
        """The file or folder of the study that a request is about."""
        if request.get("file"):
            return Path(request["file"])
        if request.get("session_id"):
            return session_study(self.sessions(), request["session_id"])
        return datastore_study(datastore, request.get("image") or "")
