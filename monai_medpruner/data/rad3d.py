# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""3D-RAD (Gai et al. 2025, arXiv 2506.11147): six tasks on chest CT volumes from CT-RATE."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_medpruner.data.annotation_files import find_annotations, read_table
from monai_medpruner.data.benchmark_items import BenchmarkItems
from monai_medpruner.data.meduni_eval import add_conversations
from monai_medpruner.errors import BenchmarkError, SettingsError

__all__ = ["ct_rate_names", "load_rad3d"]

_CHOICES = {letter: f"Choice {letter}" for letter in "ABCD"}
_COLUMNS = ("VolumeName", "Question", "Answer", "QuestionType", "AnswerChoice", *_CHOICES.values())
_TASKS = {"Close": "closed", "Open": "open"}
_TASK_FOLDER = re.compile(r"Task[0-9]+_(?P<type>.+)")
_VOLUME_NAME = re.compile(r"(?P<split>test|train)_(?P<patient>[0-9]+)_(?P<scan>[a-z]+)_(?P<number>[0-9]+)")


def load_rad3d(
    folder: PathLike,
    annotations: str | None = None,
    images: PathLike | None = None,
    split: str = "test",
    task: str | None = None,
    mode: str = "clean",
    missing_images: str = "refuse",
) -> list[dict[str, Any]]:
    """List the questions of 3D-RAD from a local folder.

    Download the data set yourself; its volumes are from CT-RATE, under CC BY-NC-SA. Duplicate rows in the official
    tables (nine in the test split) are separate items, as in the authors' counts.

    Args:
        folder: folder with the official tables, ``3DRAD/{train,test}/TaskN_*/*.csv`` or
            ``{train,test}/TaskN_*/*.csv``, or with MedUniEval's ``Rad3D_test.json``.
        annotations: annotations to use, relative to the folder, if there are several, such as ``3DRAD/test``.
        images: folder of the volumes, flat or in CT-RATE's layout (see :func:`ct_rate_names`); None for ``folder``.
            MedUniEval's paths are relative to it as well.
        split: "test" or "train", for the official tables.
        task: "closed" or "open"; None for both.
        mode: "clean", or "official" to keep absent choices ("-") in the items, and the choices in the text of
            MedUniEval's questions.
        missing_images: "refuse" or "keep"; see :class:`~.benchmark_items.BenchmarkItems`.

    Returns:
        items with the keys of :data:`~.benchmark_items.ITEM_KEYS`; ``type`` is the task ("Existence_Detection"),
        ``subtype`` the table's name ("Atelectasis").

    Raises:
        BenchmarkError: the annotations are missing or malformed; the message has the line.
        MissingImagesError: images are missing.
        SettingsError: an argument is invalid.
    """
    if split not in ("test", "train"):
        raise SettingsError(f"split must be 'test' or 'train', got {split!r}")
    root = Path(folder).expanduser()
    source = find_annotations(root, [f"3DRAD/{split}", split, f"Rad3D_{split}.json"], annotations)
    items = BenchmarkItems([root if images is None else Path(images).expanduser()], task, mode, missing_images)
    if source.suffix.lower() == ".json":
        add_conversations(items, source)
    else:
        tables = sorted(source.glob("Task*_*/*.csv"))
        if not tables:
            raise BenchmarkError(f"{source} does not contain TaskN_*/*.csv")
        for table in tables:
            _add_table(items, table)
    return items.datalist()


def ct_rate_names(volume_name: str) -> Sequence[str]:
    """Return candidate paths of a 3D-RAD volume; its test volumes are CT-RATE's validation volumes.

    Args:
        volume_name: such as "test_1000_a_1", with or without ".nii.gz".

    Returns:
        relative paths: the name itself, CT-RATE's name ("valid_1000_a_1.nii.gz"), and CT-RATE's name in its folders
        ("valid_1000/valid_1000_a/…", also below "valid", "valid_fixed", "dataset/valid", "dataset/valid_fixed").
    """
    name = volume_name if volume_name.endswith(".nii.gz") else f"{volume_name}.nii.gz"
    match = _VOLUME_NAME.fullmatch(name.removesuffix(".nii.gz"))
    if match is None:
        return (name,)
    split = "valid" if match["split"] == "test" else "train"
    patient = f"{split}_{match['patient']}"
    own_name = f"{patient}_{match['scan']}_{match['number']}.nii.gz"
    nested = f"{patient}/{patient}_{match['scan']}/{own_name}"
    parents = [f"{above}{split}{fixed}/" for above in ("", "dataset/") for fixed in ("_fixed", "")]
    return (name, own_name, *(f"{parent}{nested}" for parent in ("", *parents)))


def _add_table(items: BenchmarkItems, table: Path) -> None:
    kind = _TASK_FOLDER.fullmatch(table.parent.name)
    for where, row in read_table(table, _COLUMNS):
        if row["QuestionType"] not in _TASKS:
            raise BenchmarkError(f"{where}: QuestionType must be Open or Close, found {row['QuestionType']!r}")
        if row["Answer"].strip() == "-":
            raise BenchmarkError(f"{where}: the answer is empty ('-')")
        items.add(
            where,
            ct_rate_names(row["VolumeName"]) if row["VolumeName"].strip() else [""],
            row["Question"],
            row["Answer"],
            _TASKS[row["QuestionType"]],
            {letter: row[column] for letter, column in _CHOICES.items()},
            row["AnswerChoice"].strip(),
            type=kind["type"] if kind else table.parent.name,
            subtype=table.stem,
        )
