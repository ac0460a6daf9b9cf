# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""M3D-VQA (Bai et al. 2024, arXiv 2404.00578): questions about CT volumes, each row closed and open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_medpruner.data.annotation_files import find_annotations, read_table
from monai_medpruner.data.benchmark_items import BenchmarkItems
from monai_medpruner.data.meduni_eval import add_conversations
from monai_medpruner.errors import BenchmarkError

__all__ = ["QUESTION_TYPES", "load_m3d_vqa"]

#: number of a question type in the files -> name
QUESTION_TYPES = {"1": "Plane", "2": "Phase", "3": "Organ", "4": "Abnormality", "5": "Location"}
_CHOICES = {letter: f"Choice {letter}" for letter in "ABCD"}
_COLUMNS = ("Image Path", "Question Type", "Question", *_CHOICES.values(), "Answer", "Answer Choice")


def load_m3d_vqa(
    folder: PathLike,
    annotations: str | None = None,
    images: PathLike | None = None,
    task: str | None = None,
    mode: str = "clean",
    missing_images: str = "refuse",
) -> list[dict[str, Any]]:
    """List the questions of M3D-VQA, or of phantoms in its format, from a local folder.

    Download the data set yourself, under the terms at huggingface.co/datasets/GoodBaiBai88/M3D-VQA and M3D-Cap.

    Args:
        folder: folder with ``M3D_VQA_test.csv`` or ``M3D-VQA/M3D_VQA_test.csv``, or with MedUniEval's
            ``M3D_test.json``, whose images are folders of slices.
        annotations: other annotations, relative to the folder, such as ``M3D-VQA/M3D_VQA_val.csv``.
        images: folder that the images' paths are relative to; None for ``folder``, then the folder of the annotations.
        task: "closed", "open", or None for both. A row of the table then gives two items, the closed one first; an item
            of MedUniEval's file is one or the other.
        mode: "clean", or "official" to keep absent choices ("NA") in the items, and the choices in the text of
            MedUniEval's questions.
        missing_images: "refuse" or "keep"; see :class:`~.benchmark_items.BenchmarkItems`.

    Returns:
        items with the keys of :data:`~.benchmark_items.ITEM_KEYS`; ``type`` is a name of :data:`QUESTION_TYPES`.

    Raises:
        BenchmarkError: the annotations are missing or malformed; the message has the line.
        MissingImagesError: images are missing.
        SettingsError: an argument is invalid.
    """
    root = Path(folder).expanduser()
    names = ["M3D_VQA_test.csv", "M3D-VQA/M3D_VQA_test.csv", "M3D_test.json"]
    source = find_annotations(root, names, annotations)
    roots = [root, source.parent] if images is None else [Path(images).expanduser()]
    items = BenchmarkItems(roots, task, mode, missing_images)
    if source.suffix.lower() == ".json":
        add_conversations(items, source, QUESTION_TYPES)
    else:
        _add_table(items, source)
    return items.datalist()


def _add_table(items: BenchmarkItems, table: Path) -> None:
    for where, row in read_table(table, _COLUMNS):
        kind = row["Question Type"].strip()
        if kind not in QUESTION_TYPES:
            raise BenchmarkError(f"{where}: question type must be one of {list(QUESTION_TYPES)}, found {kind!r}")
        for asked in ("closed", "open"):
            items.add(
                where,
                [row["Image Path"]],
                row["Question"],
                row["Answer"],
                asked,
                {letter: row[column] for letter, column in _CHOICES.items()},
                row["Answer Choice"].strip(),
                type=QUESTION_TYPES[kind],
            )
