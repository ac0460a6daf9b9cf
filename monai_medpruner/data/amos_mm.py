# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""AMOS-MM (MICCAI 2024): reports on abdominal CT, and questions about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from monai.config import PathLike

from monai_medpruner.data.annotation_files import find_annotations, read_json_file, text_field
from monai_medpruner.data.benchmark_items import BenchmarkItems
from monai_medpruner.data.conversations import read_conversations, split_answer
from monai_medpruner.errors import BenchmarkError, SettingsError

__all__ = ["REGIONS", "load_amos_mm"]

#: regions of a report, in the order in which they are joined
REGIONS = ("chest", "abdomen", "pelvis")
#: the two files of the data set: reports, and questions about the same volumes
_REPORTS, _QUESTIONS = "report_generation_train_val.json", "vqa_train_val.json"
#: other forms: both in one file, and MedUniEval's conversations about slice folders
_OTHERS = ("dataset.json", "amos_val_mrg_sft.json", "MM/amos_val_mrg_sft.json")
# prompts for reports with and without an impression, because the data set has none; a protocol's own one replaces them
_ASK_REPORT = "Please write a radiology report of this CT scan, with findings and impression."
_ASK_FINDINGS = "Please write the findings of this CT scan as a radiology report."


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
        folder: folder with the official ``report_generation_train_val.json`` and ``vqa_train_val.json`` (one of them
            suffices; both are joined by the image's name), with a ``dataset.json`` that holds both, or with
            MedUniEval's ``amos_val_mrg_sft.json`` (directly or in ``MM``), whose slice folders are relative to that
            file.
        annotations: annotation file to use, relative to the folder, if there are several.
        images: folder that image paths are relative to; None for the folder of the annotations, then ``folder``.
        split: "training", "validation" or "testing", of the official files.
        task: "report", "closed", or None for both.
        mode: "clean", or "official" to keep absent choices in the items.
        missing_images: "refuse" or "keep"; see :class:`~.benchmark_items.BenchmarkItems`.

    Returns:
        items with the keys of :data:`~.benchmark_items.ITEM_KEYS`. The report of a volume is its non-empty findings and
        then its impression, one line for each region, in the order of :data:`REGIONS`; its ``type`` is "report".

    Raises:
        BenchmarkError: the annotations are missing or malformed, or have no labels.
        MissingImagesError: images are missing.
        SettingsError: an argument is invalid.
    """
    if split not in ("training", "validation", "testing"):
        raise SettingsError(f"split must be 'training', 'validation' or 'testing', got {split!r}")
    root = Path(folder).expanduser()
    sources = _annotation_files(root, annotations)
    roots = list(dict.fromkeys([sources[0].parent, root])) if images is None else [Path(images).expanduser()]
    items = BenchmarkItems(roots, task, mode, missing_images)
    contents = [read_json_file(source) for source in sources]
    if isinstance(contents[0], list):
        for entry in read_conversations(sources[0]):
            items.add(entry.where, [entry.image], entry.question.strip(), entry.answer, "report", type="report")
        return items.datalist()
    for study in _joined(list(zip(sources, contents, strict=True)), split):
        _add_study(items, study)
    return items.datalist()


@dataclass
class _Study:
    """What the files state about one volume.

    Attributes:
        where: places in the files.
        images: paths of the image, as stated.
        labels: report and questions.
    """

    where: list[str]
    images: list[str]
    labels: dict[str, Any]


def _annotation_files(root: Path, annotations: str | None) -> list[Path]:
    """Return the chosen file; or the two official ones, as far as they are there; or the only other one."""
    own = [root / name for name in (_REPORTS, _QUESTIONS) if (root / name).is_file()]
    others = [name for name in _OTHERS if (root / name).is_file()]
    if annotations is None and own and not others:
        return own
    return [find_annotations(root, [_REPORTS, _QUESTIONS, *_OTHERS], annotations)]


def _joined(files: Sequence[tuple[Path, Any]], split: str) -> list[_Study]:
    """Return the studies of a split, those of the first file first. Files name a study by the same image."""
    studies: dict[str, _Study] = {}
    if not any(isinstance(content, dict) and isinstance(content.get(split), list) for _, content in files):
        raise BenchmarkError(f"{' and '.join(str(path) for path, _ in files)}: expected a list under {split!r}")
    for path, content in files:
        named: set[str] = set()
        for number, volume in enumerate(content.get(split, []) if isinstance(content, dict) else []):
            where = f"{path}, {split} {number}"
            image, labels = text_field(volume, "image", where), volume.get("labels")
            if not isinstance(labels, dict):
                raise BenchmarkError(f"{where}: no 'labels'; expected a reference report and answers under 'labels'")
            name = PurePosixPath(image).name
            if name in named:
                raise BenchmarkError(f"{where}: the study of {name} is in the file twice")
            named.add(name)
            study = studies.setdefault(name, _Study([], [], {}))
            if both := labels.keys() & study.labels.keys():
                raise BenchmarkError(f"{where}: {sorted(both)} of {name} is also in {study.where[0]}")
            study.where.append(where)
            study.images.append(image)
            study.labels |= labels
    return list(studies.values())


def _add_study(items: BenchmarkItems, study: _Study) -> None:
    where, image = "; ".join(study.where), study.images
    findings, impression = (_report_part(study.labels, name, where) for name in ("findings", "impression"))
    if findings or impression:
        asked = _ASK_REPORT if impression else _ASK_FINDINGS
        items.add(where, image, asked, "\n".join([*findings, *impression]), "report", type="report")
    else:
        items.report("volumes without findings (no report item)", where)
    if findings and not impression:
        items.report("reports without an impression (the findings alone are the reference)", where)
    questions = study.labels.get("qa", [])
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


def _report_part(labels: dict[str, Any], name: str, where: str) -> list[str]:
    """Return the non-empty texts of the findings or the impression, one for each region that has any.

    A part is stated by region, or as a whole; its statements are one text, or a list of them.
    """
    report = labels.get("report") or {}
    part = report.get(name) if isinstance(report, dict) else None
    if not isinstance(part, dict):
        part = {} if part is None else {name: part}
    regions = [region for region in (*REGIONS, name) if region in part]
    if part and not regions:
        raise BenchmarkError(f"{where}: expected the regions {REGIONS} under {name!r}, found {sorted(part)}")
    return [text for region in regions if (text := _statements(part, region, where))]


def _statements(part: dict[str, Any], region: str, where: str) -> str:
    stated = part[region]
    if isinstance(stated, list):
        texts = [text_field(stated, number, where) for number in range(len(stated))]
    else:
        texts = [text_field(part, region, where)]
    return " ".join(text.strip() for text in texts if text.strip())
