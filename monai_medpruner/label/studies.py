# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The studies of a server: which there are, and where one lies that a request names."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore

from monai_medpruner.data.dicom_header import is_dicom
from monai_medpruner.data.image_stack import is_image_folder
from monai_medpruner.errors import RequestError, UnknownStudyError
from monai_medpruner.label.parameters import check_identifier

__all__ = ["UPLOAD_SUFFIXES", "Study", "StudyDatastore", "datastore_study", "session_study", "uploaded_study"]

#: of an uploaded file; a DICOM series goes through a session
UPLOAD_SUFFIXES = (".nii.gz", ".nii", ".npy", ".dcm")
_IMAGE_SUFFIXES = (".nii.gz", ".nii", ".npy")
_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Study:
    """A study that a request is about.

    Args:
        path: its file or folder.
        key: what its content is known by.
    """

    path: Path
    key: tuple[str, ...]


class StudyDatastore(LocalDatastore):
    """MONAI Label's datastore of a local folder, which also lists folders: DICOM series and stacks of slices.

    The name of such a folder is the image's id, as the name of a file without its ending is a file's.
    """

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        found: dict[str, str] = super()._list_files(path, patterns)
        if os.path.realpath(path) != os.path.realpath(self._datastore_path):
            return found
        files = {name: file for name, file in found.items() if name.lower().endswith(_IMAGE_SUFFIXES)}
        return files | {one.name: one.name for one in Path(path).iterdir() if _is_study_folder(one)}

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an uploaded image; a file of another kind could replace the datastore's own table.

        Raises:
            RequestError: the file's ending is not that of an image.
        """
        if not image_filename.lower().endswith(_IMAGE_SUFFIXES):
            raise RequestError(f"an image must end in {', '.join(_IMAGE_SUFFIXES)}")
        return str(super().add_image(image_id, image_filename, image_info))

    def get_image_uri(self, image_id: str) -> str:
        """Path of an image's file or folder; empty where there is none in the folder of the studies itself."""
        entry = self._datastore.objects.get(image_id)
        name = self._filename(image_id, entry.image.ext) if entry else ""
        return str(super().get_image_uri(image_id)) if name in os.listdir(self._datastore_path) else ""

    def _to_id(self, file: str) -> tuple[str, str]:
        if (Path(self._datastore_path) / file).is_dir():
            return file, ""
        identifier, suffix = super()._to_id(file)
        return identifier, suffix


def datastore_study(datastore: Any, identifier: str) -> Study:
    """The study of an id of the datastore; ids that came to its folder since it was listed are found too.

    Raises:
        RequestError: the id could be a path.
        UnknownStudyError: there is none.
    """
    check_identifier("image", identifier)
    if identifier not in datastore.list_images():
        datastore.refresh()
    if identifier not in datastore.list_images():
        raise UnknownStudyError("no image of this name is among the studies; GET /datastore/?output=all lists them")
    path = datastore.get_image_uri(identifier)
    if not path:
        raise UnknownStudyError("the image is listed, but its file is no longer there")
    return _stored_study(Path(path))


def session_study(sessions: Any, identifier: str) -> Study:
    """The study that a client uploaded into a session.

    Raises:
        RequestError: the id has another form than those that the server gives.
        UnknownStudyError: there is no such session, or it has expired.
    """
    if not _SESSION.fullmatch(identifier):
        raise RequestError("session_id must be one that PUT /session/ returned")
    session = sessions.get_session(identifier) if sessions is not None else None
    if session is None:
        raise UnknownStudyError("there is no such session; it may have expired")
    return _stored_study(Path(session.image))


def uploaded_study(file: Path) -> Study:
    """A file that came with the request; the same bytes are the same study."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return Study(file, ("upload", digest.hexdigest()))


def upload_name(filename: str | None) -> str:
    """Name under which an uploaded file is stored, nothing of the client's but its ending.

    Raises:
        RequestError: the ending is none of :data:`UPLOAD_SUFFIXES`.
    """
    suffixes = [suffix for suffix in UPLOAD_SUFFIXES if (filename or "").lower().endswith(suffix)]
    if not suffixes:
        known = ", ".join(UPLOAD_SUFFIXES)
        raise RequestError(f"an uploaded file must end in {known}; the files of a DICOM series go to /session/")
    return f"upload{suffixes[0]}"


def _stored_study(path: Path) -> Study:
    """A study on disk, known by its place and by what changes when its files do."""
    if not path.exists():
        raise UnknownStudyError("the image is listed, but its file is no longer there")
    files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
    facts = []
    for file in files:
        status = file.stat()
        facts.append((file.name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return Study(path, (str(path), hashlib.sha256(repr(facts).encode()).hexdigest()))


def _is_study_folder(folder: Path) -> bool:
    """Whether a folder of the studies holds a volume: DICOM files, or numbered PNG or JPEG slices."""
    if not folder.is_dir() or folder.name.startswith(".") or folder.name == "labels":
        return False
    return any(one.is_file() and is_dicom(one) for one in folder.iterdir()) or is_image_folder(folder)
