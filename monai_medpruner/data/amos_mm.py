# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""AMOS-MM (MICCAI 2024): reports on abdominal CT, and questions about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_medpruner.data.annotation_files import find_annotations, read_json_file, text_field
from monai_medpruner.data.benchmark_items import BenchmarkItems
from monai_medpruner.data.conversations import read_conversations, split_answer
from monai_medpruner.errors import BenchmarkError, SettingsError

__all__ = ["REGIONS", "REPORT_QUESTION", "load_amos_mm"]

#: regions of a report, in the order in which they are joined
REGIONS = ("chest", "abdomen", "pelvis")
#: default report prompt, because the data set has none; a protocol with its own report prompt replaces it
REPORT_QUESTION = "Please write the findings of this CT scan as a radiology report."


def load_amos_mm(
    folder: PathLike,
    annotations: str | None = None,
    images: PathLike | None = None,
    split: str = "validation",
    task: str | None = None,
    mode: str = "clean",
    missing_images: str = "refuse",
) -> list[dict[str, Any]]:
    """List the reports and questions of AMOS-MM from a local folder.

    Download the data set yourself, under the terms of the AMOS challenge.

    Args:
        folder: folder with the official ``dataset.json``, or with MedUniEval's ``amos_val_mrg_sft.json`` (directly or
            in ``MM``), whose slice folders are relative to that file.
        annotations: annotation file to use, relative to the folder, if there are several.
        images: folder that image paths are relative to; None for the folder of the annotations, then ``folder``.
        split: "training", "validation" or "testing", of ``dataset.json``.
        task: "report", "closed", or None for both.
        mode: "clean", or "official" to keep absent choices in the items.
        missing_images: "refuse" or "keep"; see :class:`~.benchmark_items.BenchmarkItems`.

    Returns:
        items with the keys of :data:`~.benchmark_items.ITEM_KEYS`. The report of a volume is the non-empty findings of
        its regions, one line each, in the order of :data:`REGIONS`; its ``type`` is "report".

    Raises:
        BenchmarkError: the annotations are missing or malformed, or have no labels.
        MissingImagesError: images are missing.
        SettingsError: an argument is invalid.
    """
    if split not in ("training", "validation", "testing"):
        raise SettingsError(f"split must be 'training', 'validation' or 'testing', got {split!r}")
    root = Path(folder).expanduser()
    names = ["dataset.json", "amos_val_mrg_sft.json", "MM/amos_val_mrg_sft.json"]
    source = find_annotations(root, names, annotations)
    roots = list(dict.fromkeys([source.parent, root])) if images is None else [Path(images).expanduser()]
    items = BenchmarkItems(roots, task, mode, missing_images)
    content = read_json_file(source)
    if isinstance(content, list):
        for entry in read_conversations(source):
            items.add(entry.where, [entry.image], entry.question.strip(), entry.answer, "report", type="report")
        return items.datalist()
    volumes = content.get(split) if isinstance(content, dict) else None
    if not isinstance(volumes, list):
        raise BenchmarkError(f"{source}: expected a list of volumes under {split!r}")
    for number, volume in enumerate(volumes):
        _add_volume(items, volume, f"{source}, {split} {number}")
    return items.datalist()


def _add_volume(items: BenchmarkItems, volume: Any, where: str) -> None:
    image = [text_field(volume, "image", where)]
    labels = volume.get("labels")
    if not isinstance(labels, dict):
        raise BenchmarkError(f"{where}: no 'labels'; expected a reference report and answers under 'labels'")
    report = _report(labels, where)
    if report:
        items.add(where, image, REPORT_QUESTION, report, "report", type="report")
    else:
        items.report("volumes without findings (no report item)", where)
    questions = labels.get("qa", [])
    if not isinstance(questions, list):
        raise BenchmarkError(f"{where}: expected a list under 'qa'")
    for number, entry in enumerate(questions):
        place = f"{where}, qa {number}"
        question, stated = text_field(entry, "question", place), text_field(entry, "answer", place)
        options = entry.get("options")
        if not isinstance(options, dict) or not all(isinstance(text, str) for text in options.values()):
            raise BenchmarkError(f"{place}: expected letters and texts under 'options'")
        letter, answer = split_answer(stated, options)
        items.add(place, image, question, answer, "closed", options, letter, type=str(entry.get("type", "")))


def _report(labels: dict[str, Any], where: str) -> str:
    report = labels.get("report") or {}
    findings = report.get("findings") if isinstance(report, dict) else None
    if not isinstance(findings, (dict, type(None))):
        raise BenchmarkError(f"{where}: expected regions and texts under 'findings'")
    texts = [text_field(findings, region, where).strip() for region in REGIONS if region in (findings or {})]
    return "\n".join(text for text in texts if text)
