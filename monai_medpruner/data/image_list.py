# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Lists of images and their questions, from arguments or files."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai_medpruner.errors import QuestionError, SettingsError, UnreadableVolumeError

__all__ = [
    "MAX_QUESTION_CHARACTERS",
    "check_question",
    "image_items",
    "pair_questions",
    "question_items",
    "require_items",
]

MAX_QUESTION_CHARACTERS = 20_000
VERBATIM_HINT = (
    "MONAI's command line changes text and paths that contain # $ @ % or ,: put them in --questions_file (JSONL)."
)
_JSONL_KEYS = {"question", "image", "id"}


def question_items(
    image: str | Sequence[str] | None = None,
    question: str | Sequence[str] | None = None,
    questions_file: str | None = None,
    dataset_dir: str = "",
    max_characters: int = MAX_QUESTION_CHARACTERS,
    missing_images: str = "refuse",
) -> list[dict[str, Any]]:
    """List the volumes of a run with their questions.

    Args:
        image: as in :py:func:`image_items`.
        question: a question or a list of questions for every image; None or ``""`` for none.
        questions_file: as in :py:func:`pair_questions`; None or ``""`` for none.
        dataset_dir: folder that image paths are relative to; empty for the working directory.
        max_characters: longest question.
        missing_images: "refuse", or "keep" to list images that do not exist; each then fails when it is read.

    Returns:
        items ``{"image": path, "question": [text, ...]}``; an empty list without images.

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
    if missing_images not in ("refuse", "keep"):
        raise SettingsError(f"missing_images must be refuse or keep, got {missing_images!r}")
    refuse = missing_images == "refuse"
    return pair_questions(image_items(image, refuse), question or None, questions_file, max_characters, refuse)


def require_items(items: Sequence[Any]) -> None:
    """Raise if a run has no image.

    Raises:
        SettingsError: ``items`` is empty.
    """
    if not items:
        raise SettingsError(
            "no image was given: add --image with a NIfTI file or a DICOM folder (or a list or CSV of them), and "
            "--question, or a --questions_file"
        )


def image_items(image: str | Sequence[str] | None, refuse_missing: bool = True) -> list[dict[str, str]]:
    """List the images that a user passes.

    Args:
        image: a NIfTI file, a DICOM folder, a CSV file with a column ``image`` (paths relative to the CSV's folder), or
            a list of these; None or ``""`` for no images.
        refuse_missing: whether a path that does not exist is an error.

    Returns:
        one dictionary per image, in order, with ``image``, the path as given (joined to the folder of its CSV), and
        the other columns of a CSV row, such as ``question``.

    Raises:
        SettingsError: if ``image`` is not text, or a CSV is malformed.
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
        if refuse_missing and not Path(item["image"]).expanduser().exists():
            raise UnreadableVolumeError(f"{item['image']} does not exist")
    return items


def pair_questions(
    images: Sequence[dict[str, str]],
    question: str | Sequence[str] | None = None,
    questions_file: str | None = None,
    max_characters: int = MAX_QUESTION_CHARACTERS,
    refuse_missing: bool = True,
) -> list[dict[str, Any]]:
    """Group all questions about an image into one item, so that each volume is encoded once.

    Args:
        images: from :py:func:`image_items`. The ``question`` of a CSV row comes first; duplicate images share one item.
        question: a question or a list of questions for every image of ``images``.
        questions_file: JSONL file with lines ``{"question": str, "image": str, "id": str}``, the last two optional.
            A line without ``image`` applies to every image of ``images``. A path in ``image`` is relative to the folder
            of the file and may add an image.
        max_characters: longest question.
        refuse_missing: whether an image of the file that does not exist is an error.

    Returns:
        items ``{"image": str, "question": [str, ...]}``, images in order of appearance, questions in the order CSV,
        ``question``, file. If the file has any ``id``, every item also has ``question_id``, a list of the same length
        as ``question``, with None for questions without an id. Without images and file, the list is empty.

    Raises:
        QuestionError: if a question is not text, is empty or too long, or an image has no question.
        SettingsError: if the file is missing or malformed (the message has the line), or a question has no image.
        UnreadableVolumeError: if an image of the file does not exist.
    """
    if not images and not questions_file:
        return []
    grouped: dict[str, dict[str, Any]] = {}

    def add(image: str, text: str | None, identity: str | None = None, where: str = "") -> None:
        if text is not None:
            check_question(text, where, max_characters)
        # different spellings of a path are the same image; the first spelling is kept
        key = os.path.realpath(os.path.expanduser(image))
        item = grouped.setdefault(key, {"image": image, "question": [], "question_id": []})
        # an image's own question in a CSV may be among those for all images; one with an id is asked as often as stated
        if text is not None and (identity is not None or text not in item["question"]):
            item["question"].append(text)
            item["question_id"].append(identity)

    for number, item in enumerate(images):
        add(item["image"], item.get("question") or None, where=f"image {number}: ")
    shared = [item["image"] for item in grouped.values()]
    for text in _question_list(question, max_characters):
        for image in shared:
            add(image, text)
    for line, entry in _read_jsonl(questions_file, refuse_missing):
        if entry["image"] is None and not shared:
            raise SettingsError(f"{line}: the question has no image, and no image was given")
        for image in shared if entry["image"] is None else [entry["image"]]:
            add(image, entry["question"], entry["id"], f"{line}: ")
    unasked = [number for number, item in enumerate(grouped.values()) if not item["question"]]
    if unasked:
        raise QuestionError(
            f"no question for {len(unasked)} of {len(grouped)} images; the first is number {unasked[0] + 1}. "
            "Add --question or --questions_file"
        )
    identified = any(identity is not None for item in grouped.values() for identity in item["question_id"])
    keys = ("image", "question", "question_id") if identified else ("image", "question")
    return [{key: item[key] for key in keys} for item in grouped.values()]


def check_question(question: Any, where: str = "", max_characters: int = MAX_QUESTION_CHARACTERS) -> str:
    """Return a valid question, or raise.

    Args:
        question: anything.
        where: beginning of the message.
        max_characters: longest question.

    Raises:
        QuestionError: it is not text, is empty or too long, or UTF-8 cannot encode it.
    """
    if not isinstance(question, str):
        raise QuestionError(f"{where}a question must be text, found {type(question).__name__}. {VERBATIM_HINT}")
    if not question.strip():
        raise QuestionError(f"{where}the question is empty")
    if len(question) > max_characters:
        raise QuestionError(
            f"{where}the question has {len(question)} characters; the maximum is {max_characters}, because longer text "
            "leaves too little of the model's context for the volume. Split it into several questions, or raise "
            "limit_question."
        )
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise QuestionError(f"{where}the question contains half a character (a lone surrogate)") from error
    return question


def _question_list(question: Any, max_characters: int) -> list[str]:
    if question is None:
        return []
    listed = question if isinstance(question, (list, tuple)) else [question]
    return [check_question(one, max_characters=max_characters) for one in listed]


def _read_csv(path: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file, with image paths joined to its folder."""
    folder = Path(path).expanduser().parent
    rows = []
    try:
        with Path(path).expanduser().open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if "image" not in (reader.fieldnames or []):
                raise SettingsError(f"{path} must have a column 'image', found {reader.fieldnames}")
            for row in reader:
                # DictReader stores surplus cells under the key None, and missing cells as None
                if None in row or None in row.values() or not row["image"]:
                    raise SettingsError(f"{path}, line {reader.line_num}: expected an image and a cell for each column")
                rows.append({**row, "image": str(folder / row["image"])})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path} cannot be read as a CSV file ({type(error).__name__})") from error
    return rows


def _read_jsonl(path: str | None, refuse_missing: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield location ("file, line 3") and entry (question, image, id) of each non-blank line."""
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
            yield where, _parse_line(text, where, Path(path).expanduser().parent, refuse_missing)


def _parse_line(text: str, where: str, folder: Path, refuse_missing: bool) -> dict[str, Any]:
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
        if refuse_missing and not Path(image).expanduser().exists():
            raise UnreadableVolumeError(f"{where}: {image} does not exist")
    return {"question": entry["question"], "image": image, "id": identity}
