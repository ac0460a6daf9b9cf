# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Lists of images and the questions about them, from the command line or from files."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai_medpruner.errors import QuestionError, SettingsError, UnreadableVolumeError

__all__ = ["MAX_QUESTION_CHARACTERS", "image_items", "pair_questions", "question_items", "require_items"]

MAX_QUESTION_CHARACTERS = 20_000
VERBATIM_HINT = (
    "Text or paths with # $ @ % , do not survive MONAI's command line: put them in --questions_file (JSONL)."
)
_JSONL_KEYS = {"question", "image", "id"}


def question_items(
    image: str | Sequence[str] | None = None,
    question: str | Sequence[str] | None = None,
    questions_file: str | None = None,
    dataset_dir: str = "",
) -> list[dict[str, Any]]:
    """List the volumes of a run with the questions about them.

    Args:
        image: as in :py:func:`image_items`.
        question: one question or a list, asked about every image; None or ``""`` for none.
        questions_file: as in :py:func:`pair_questions`; None or ``""`` for none.
        dataset_dir: folder that relative paths of images start from; empty for the working directory.

    Returns:
        items ``{"image": path, "question": [text, ...]}``; none where no image was given.

    Raises:
        SettingsError: a value is not text, or not a list of texts.
        QuestionError: a question is empty or too long, or an image has none.
        VolumeReadError: an image does not exist.
    """
    for name, value in (("image", image), ("question", question), ("questions_file", questions_file)):
        texts = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(text, str) for text in texts):
            raise SettingsError(f"{name} must be text or a list of texts, got {type(value).__name__}. {VERBATIM_HINT}")
    if dataset_dir and image:
        image = [os.path.join(dataset_dir, one) for one in ([image] if isinstance(image, str) else image)]
    return pair_questions(image_items(image), question or None, questions_file)


def require_items(items: Sequence[Any]) -> None:
    """Refuse a run without an image.

    Raises:
        SettingsError: ``items`` is empty.
    """
    if not items:
        raise SettingsError(
            "no image was given: add --image with a NIfTI file or a DICOM folder (or a list or CSV of them), and "
            "--question, or a --questions_file"
        )


def image_items(image: str | Sequence[str] | None) -> list[dict[str, str]]:
    """List the images that a user names.

    Args:
        image: a NIfTI file, a DICOM folder, a CSV file with a column ``image`` (paths relative to the CSV's folder), or
            a list of these; None or ``""`` for none.

    Returns:
        one dictionary per image, in order: ``image``, the path as given (joined to its CSV's folder), and the other
        columns of a CSV row, such as ``question``.

    Raises:
        SettingsError: if ``image`` is not text, or a CSV is not as described.
        UnreadableVolumeError: if a path does not exist.
    """
    if image is None or image == "":
        return []
    paths = [image] if isinstance(image, str) else image
    if not isinstance(paths, (list, tuple)) or not all(isinstance(i, str) and i for i in paths):
        found = [type(i).__name__ for i in paths] if isinstance(paths, (list, tuple)) else type(image).__name__
        raise SettingsError(f"image must be a path or a list of paths, found {found}. {VERBATIM_HINT}")
    items: list[dict[str, str]] = []
    for path in paths:
        if path.lower().endswith(".csv"):
            items += _read_csv(path)
        else:
            items.append({"image": path})
    for item in items:
        if not Path(item["image"]).expanduser().exists():
            raise UnreadableVolumeError(f"{item['image']} does not exist")
    return items


def pair_questions(
    images: Sequence[dict[str, str]],
    question: str | Sequence[str] | None = None,
    questions_file: str | None = None,
) -> list[dict[str, Any]]:
    """Put each image and all questions about it into one item, so that a volume is encoded once.

    Args:
        images: from :py:func:`image_items`. An image's own ``question`` (of a CSV) is asked first; an image named twice
            is one item.
        question: one question or a list, asked about every image of ``images``.
        questions_file: JSONL file, each line ``{"question": str, "image": str, "id": str}``, the last two optional.
            Lines without ``image`` are asked about every image of ``images``; a path in ``image`` is relative to the
            file's folder and may add an image.

    Returns:
        items ``{"image": str, "question": [str, ...]}`` in the order in which images appear, questions in the order
        CSV, ``question``, file. Where the file gives any ``id``, every item also has ``question_id``, a list as long as
        ``question`` with None for questions without one. No images and no file: an empty list.

    Raises:
        QuestionError: if a question is not text, empty or too long, or an image has no question.
        SettingsError: if the file is missing or malformed (with the line), or a question has no image.
        UnreadableVolumeError: if an image of the file does not exist.
    """
    if not images and not questions_file:
        return []
    asked: dict[str, dict[str, Any]] = {}

    def ask(image: str, text: str | None, identity: str | None = None) -> None:
        # two spellings of one path are one image; the first is kept
        key = os.path.realpath(os.path.expanduser(image))
        item = asked.setdefault(key, {"image": image, "question": [], "question_id": []})
        if text is not None:
            item["question"].append(text)
            item["question_id"].append(identity)

    for number, item in enumerate(images):
        ask(item["image"], _checked(item["question"], f"image {number}: ") if item.get("question") else None)
    shared = [item["image"] for item in asked.values()]
    for text in _question_list(question):
        for image in shared:
            ask(image, text)
    for line, entry in _read_jsonl(questions_file):
        if entry["image"] is None and not shared:
            raise SettingsError(f"{line}: the question names no image, and no image was given")
        for image in shared if entry["image"] is None else [entry["image"]]:
            ask(image, entry["question"], entry["id"])
    silent = [number for number, item in enumerate(asked.values()) if not item["question"]]
    if silent:
        raise QuestionError(
            f"no question for {len(silent)} of {len(asked)} images, the first is number {silent[0] + 1}"
        )
    identified = any(identity is not None for item in asked.values() for identity in item["question_id"])
    keys = ("image", "question", "question_id") if identified else ("image", "question")
    return [{key: item[key] for key in keys} for item in asked.values()]


def _checked(question: Any, where: str = "") -> str:
    """Return a question that a model can be asked, or raise."""
    if not isinstance(question, str):
        raise QuestionError(f"{where}a question must be text, found {type(question).__name__}. {VERBATIM_HINT}")
    if not question.strip():
        raise QuestionError(f"{where}the question is empty")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise QuestionError(
            f"{where}the question has {len(question)} characters; at most {MAX_QUESTION_CHARACTERS} are taken: longer "
            "text crowds the volume out of the model's context. Ask in several questions."
        )
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise QuestionError(f"{where}the question holds half a character (a lone surrogate)") from error
    return question


def _question_list(question: Any) -> list[str]:
    if question is None:
        return []
    return [_checked(i) for i in (question if isinstance(question, (list, tuple)) else [question])]


def _read_csv(path: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file, their paths joined to its folder."""
    folder = Path(path).expanduser().parent
    rows = []
    try:
        with Path(path).expanduser().open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if "image" not in (reader.fieldnames or []):
                raise SettingsError(f"{path} must have a column 'image', found {reader.fieldnames}")
            for row in reader:
                # DictReader files surplus cells under None, and missing ones as None
                if None in row or None in row.values() or not row["image"]:
                    raise SettingsError(f"{path}, line {reader.line_num}: expected an image and a cell for each column")
                rows.append({**row, "image": str(folder / row["image"])})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path} cannot be read as a CSV file ({type(error).__name__})") from error
    return rows


def _read_jsonl(path: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place ("file, line 3") and entry (question, image, id) of each line that is not blank."""
    if not path:
        return
    if not isinstance(path, str):
        raise SettingsError(f"questions_file must be a path, found {type(path).__name__}")
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as a JSONL file ({type(error).__name__})") from error
    for number, text in enumerate(lines, start=1):
        if text.strip():
            where = f"{path}, line {number}"
            yield where, _parse_line(text, where, Path(path).expanduser().parent)


def _parse_line(text: str, where: str, folder: Path) -> dict[str, Any]:
    try:
        entry = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(entry, dict) or not {"question"} <= set(entry) <= _JSONL_KEYS:
        raise SettingsError(
            f'{where}: expected {{"question": "...", "image": "...", "id": "..."}}, the last two optional'
        )
    image, identity = entry.get("image"), entry.get("id")
    if not all(i is None or (isinstance(i, str) and i) for i in (image, identity)):
        raise SettingsError(f"{where}: image and id must be text")
    if image is not None:
        image = str(folder / image)
        if not Path(image).expanduser().exists():
            raise UnreadableVolumeError(f"{where}: {image} does not exist")
    return {"question": _checked(entry["question"], f"{where}: "), "image": image, "id": identity}
