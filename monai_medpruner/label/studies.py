# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The studies of a server: listing them, and locating the study of a request."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore

from monai_medpruner.data.image_stack import is_image_folder
from monai_medpruner.data.series_files import is_dicom
from monai_medpruner.errors import RequestError, UnknownStudyError
from monai_medpruner.label.parameters import check_identifier

__all__ = ["UPLOAD_SUFFIXES", "StudyDatastore", "datastore_study", "session_study"]

#: allowed suffixes of an uploaded file; a DICOM series is uploaded through a session
UPLOAD_SUFFIXES = (".nii.gz", ".nii", ".npy", ".dcm")
_IMAGE_SUFFIXES = (".nii.gz", ".nii", ".npy")
_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class StudyDatastore(LocalDatastore):
    """MONAI Label's datastore of a local folder, extended to folders with DICOM series and stacks of slices.

    The id of such an image is the name of its folder; the id of a file is its name without suffix.
    """

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        found: dict[str, str] = super()._list_files(path, patterns)
        if os.path.realpath(path) != os.path.realpath(self._datastore_path):
            return found
        files = {name: file for name, file in found.items() if name.lower().endswith(_IMAGE_SUFFIXES)}
        return files | {one.name: one.name for one in Path(path).iterdir() if _is_study_folder(one)}

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an uploaded image; other files are rejected because they could overwrite the index of the datastore.

        Raises:
            RequestError: the file does not have an image suffix.
        """
        if not image_filename.lower().endswith(_IMAGE_SUFFIXES):
            raise RequestError(f"an image must end in {', '.join(_IMAGE_SUFFIXES)}")
        return str(super().add_image(image_id, image_filename, image_info))

    def get_image_uri(self, image_id: str) -> str:
        """Return the path of an image; empty if it is not directly in the folder of the studies."""
        entry = self._datastore.objects.get(image_id)
        name = self._filename(image_id, entry.image.ext) if entry else ""
        return str(super().get_image_uri(image_id)) if name in os.listdir(self._datastore_path) else ""

    def _to_id(self, file: str) -> tuple[str, str]:
        if (Path(self._datastore_path) / file).is_dir():
            return file, ""
        identifier, suffix = super()._to_id(file)
        return identifier, suffix


def datastore_study(datastore: Any, identifier: str) -> Path:
    """Return the file or folder of the study with the given datastore id; recently added files are found as well.

    Raises:
        RequestError: the id could be a path.
        UnknownStudyError: there is no such study.
    """
    check_identifier("image", identifier)
    if identifier not in datastore.list_images():
        datastore.refresh()
    if identifier not in datastore.list_images():
        raise UnknownStudyError("there is no study with this name; GET /datastore/?output=all lists the studies")
    path = datastore.get_image_uri(identifier)
    if not path:
        raise UnknownStudyError("the image is listed, but its file no longer exists")
    return _stored_study(Path(path))


def session_study(sessions: Any, identifier: str) -> Path:
    """Return the file or folder of the study that a client uploaded to a session.

    Raises:
        RequestError: the id does not have the format of a session id.
        UnknownStudyError: the session does not exist or has expired.
    """
    if not _SESSION.fullmatch(identifier):
        raise RequestError("session_id must be one that PUT /session/ returned")
    session = sessions.get_session(identifier) if sessions is not None else None
    if session is None:
        raise UnknownStudyError("there is no such session; it may have expired")
    return _stored_study(Path(session.image))


def upload_name(filename: str | None) -> str:
    """Return the name under which an uploaded file is stored, which keeps only the suffix of the client's name.

    Raises:
        RequestError: the suffix is not one of :data:`UPLOAD_SUFFIXES`.
    """
    suffixes = [suffix for suffix in UPLOAD_SUFFIXES if (filename or "").lower().endswith(suffix)]
    if not suffixes:
        known = ", ".join(UPLOAD_SUFFIXES)
        raise RequestError(f"an uploaded file must end in {known}; upload the files of a DICOM series to /session/")
    return f"upload{suffixes[0]}"


def _stored_study(path: Path) -> Path:
    """Return the path of a study if it is still there."""
    if not path.exists():
        raise UnknownStudyError("the image is listed, but its file no longer exists")
    return path


def _is_study_folder(folder: Path) -> bool:
    """Whether a folder contains a volume: DICOM files, or numbered PNG or JPEG slices."""
    if not folder.is_dir() or folder.name.startswith(".") or folder.name == "labels":
        return False
    return any(one.is_file() and is_dicom(one) for one in folder.iterdir()) or is_image_folder(folder)
