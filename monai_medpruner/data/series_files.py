# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Which files are looked at where a DICOM file or folder is read."""

from __future__ import annotations

import os
from pathlib import Path

from monai_medpruner.data.dicom_elements import ElementError, read_elements
from monai_medpruner.data.dicom_objects import MEDIA_DIRECTORY, non_image_kind

__all__ = ["is_dicom", "is_media_directory", "may_belong", "series_files"]

_SERIES_UID = 0x0020000E


def is_dicom(path: Path) -> bool:
    """Return whether a file has the DICOM magic number."""
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def is_media_directory(path: Path) -> bool:
    """Return whether a file is the directory of a CD, under any name: DICOM PS3.10, section 8."""
    return path.is_file() and is_dicom(path) and non_image_kind(path) == MEDIA_DIRECTORY


def series_files(path: Path) -> tuple[list[Path], list[str]]:
    """Return the files to look at for a series, and notes.

    Args:
        path: a file; a media directory stands for its folder. Or a folder: its own files, or all below it where it has
            no DICOM image of its own, or a media directory, as the top folder of a CD.
    """
    if not path.is_dir():
        if not is_media_directory(path):
            return [path], []
        path = path.parent
    own = sorted(one for one in path.iterdir() if one.is_file())
    folders = sum(one.is_dir() for one in path.iterdir())
    if not folders:
        return own, []
    kinds = [non_image_kind(one) for one in own if is_dicom(one)]
    if None in kinds and MEDIA_DIRECTORY not in kinds:
        return own, [f"subfolders are not searched: {folders}"]
    below = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)  # follows no links
    return sorted(one for one in below if one.is_file()), []


def may_belong(path: Path, series_uid: str | None) -> bool:
    """Whether a file may belong to a series: False only for a DICOM file that says it belongs to another one."""
    if series_uid is None or not is_dicom(path):
        return True
    try:
        _, found = read_elements(path, {_SERIES_UID: None})
    except ElementError:
        return True  # the decoder says what is wrong with it
    own = found.get(_SERIES_UID)
    return not isinstance(own, bytes) or own.decode("latin-1").strip(" \0") in ("", series_uid)
