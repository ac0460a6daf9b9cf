# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The studies of an archive, and the questions about each."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_medpruner.data import question_items
from monai_medpruner.data.image_list import MAX_QUESTION_CHARACTERS
from monai_medpruner.data.nifti import NIFTI_SUFFIXES
from monai_medpruner.data.series_files import is_dicom, is_media_directory
from monai_medpruner.errors import SettingsError
from monai_medpruner.terminal_text import package_logger

__all__ = ["archive_items", "study_paths"]

logger = package_logger(__name__)

_VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, ".npy")
_SHOWN = 3


def archive_items(
    studies: str | Path, questions: str | Path | None = None, max_characters: int = MAX_QUESTION_CHARACTERS
) -> list[dict[str, Any]]:
    """List the questions of an archive, each with its study.

    Args:
        studies: a folder, searched by :func:`study_paths`; or a CSV file with a column ``image``, and ``question`` if
            each study has its own.
        questions: a text file (``.txt``) with a question per line, for every study; or a JSONL file as
            :func:`~monai_medpruner.data.question_items` takes it.
        max_characters: longest question.

    Returns:
        Items with ``id``, ``image``, ``question`` and ``prompt``; those about one study follow each other. An ``id``
        that the JSONL file gives to one question about one study is kept. Any other is derived from the question and
        the study's path below the folder (of the CSV), so that it stays the same where the archive is moved.

    Raises:
        SettingsError: there is no such folder or file, no study, or an id is given twice for one study.
        QuestionError: a question is empty or too long, or a study has none.
    """
    place = Path(studies).expanduser()
    table = place.suffix.lower() == ".csv"
    if not (place.is_file() if table else place.is_dir()):
        raise SettingsError(f"{studies} is neither a folder of studies nor a CSV file with a column 'image'")
    images = str(place) if table else study_paths(place)
    asked, file = _questions(questions)
    groups = question_items(images, asked, file, max_characters=max_characters, missing_images="keep")
    if not groups:
        raise SettingsError(f"no studies in {studies}")
    return _with_ids(groups, place.parent if table else place)


def study_paths(folder: Path) -> list[str]:
    """Find the studies below a folder.

    A NIfTI or ``.npy`` file is a study. So is a folder that holds DICOM files of its own, and the folder of a CD
    (``DICOMDIR``) with all below it. Hidden files and links to folders are not looked at.

    Args:
        folder: is searched with all folders below it.

    Returns:
        The paths, sorted. A warning tells what was passed over.
    """
    found: list[str] = []
    passed: list[str] = []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [here / name for name in sorted(names) if not name.startswith(".")]
        volumes = [file for file in files if file.name.lower().endswith(_VOLUME_SUFFIXES)]
        others = [file for file in files if file not in volumes]
        if any(map(_is_directory_of_cd, others)):
            folders.clear()
            found.append(place)
            continue
        found += map(str, volumes)
        if any(map(_may_be_dicom, others)):
            found.append(place)
        else:
            passed += map(str, others)
    if passed:
        shown = ", ".join(sorted(passed)[:_SHOWN])
        logger.warning("%d files are neither NIfTI nor DICOM and are passed over: %s", len(passed), shown)
    return sorted(found)


def _is_directory_of_cd(file: Path) -> bool:
    try:
        return file.name.upper() == "DICOMDIR" and is_media_directory(file)
    except OSError:
        return False


def _may_be_dicom(file: Path) -> bool:
    """Whether a file is DICOM, or cannot be opened: its study then fails by name."""
    try:
        return is_dicom(file)
    except OSError:
        return True


def _questions(file: str | Path | None) -> tuple[list[str] | None, str | None]:
    """Return the questions of a text file, or the path of another file."""
    if file is None:
        return None, None
    if Path(file).suffix.lower() != ".txt":
        return None, str(file)
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read as a text file ({type(error).__name__})") from error
    return [line.strip() for line in lines if line.strip()], None


def _with_ids(groups: Sequence[Mapping[str, Any]], root: Path) -> list[dict[str, Any]]:
    """Return an item per question, with unique ids."""
    stated = Counter(one for group in groups for one in group.get("question_id", ()) if one is not None)
    items: dict[str, dict[str, Any]] = {}
    for group in groups:
        study = os.path.relpath(os.path.expanduser(group["image"]), root)
        identities = group.get("question_id", [None] * len(group["question"]))
        for question, given in zip(group["question"], identities, strict=True):
            own = given if stated[given] == 1 else _digest(study, given or question)
            if own in items:
                raise SettingsError(f"the id {given!r} is given to several questions about {group['image']}")
            items[own] = {"id": own, "image": group["image"], "question": question, "prompt": question}
    return list(items.values())


def _digest(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
