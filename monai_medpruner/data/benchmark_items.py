# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Items of any benchmark as a MONAI datalist, in one format and with one set of checks."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_medpruner.data.conversations import split_choices
from monai_medpruner.errors import BenchmarkError, MissingImagesError, SettingsError
from monai_medpruner.terminal_text import package_logger

__all__ = ["ITEM_KEYS", "TASKS", "BenchmarkItems", "present_choices"]

logger = package_logger(__name__)

#: keys of every item
ITEM_KEYS = ("image", "question", "choices", "answer", "answer_choice", "type", "subtype", "id", "task")
#: "closed" questions have choices, "open" questions have free-text answers, "report" items ask for a full report
TASKS = ("closed", "open", "report")
_ABSENT = ("", "-", "NA")
_MAX_LISTED = 3
_VOLUME_SUFFIXES = (".nii.gz", ".nii", ".npy")


def present_choices(cells: Mapping[str, str], mode: str) -> dict[str, str]:
    """Return letter -> text of the choices to show; "clean" mode omits choices marked absent ("NA", "-", empty)."""
    return {letter: text for letter, text in cells.items() if mode == "official" or text.strip() not in _ABSENT}


class BenchmarkItems:
    """Collects and checks the items of a benchmark; :meth:`datalist` returns them and logs irregularities.

    Args:
        roots: folders that image paths may be relative to, searched in this order.
        task: keep only items of this task, one of :data:`TASKS`; None for all.
        mode: "clean", or "official" to keep absent choices in the items as the files state them.
        missing_images: "refuse", or "keep" to keep items with the path where the image is expected; such an item fails
            individually when its image is read.

    Raises:
        SettingsError: an argument is invalid.
    """

    def __init__(
        self, roots: Sequence[Path], task: str | None = None, mode: str = "clean", missing_images: str = "refuse"
    ) -> None:
        for name, value, allowed in (
            ("task", task, (None, *TASKS)),
            ("mode", mode, ("clean", "official")),
            ("missing_images", missing_images, ("refuse", "keep")),
        ):
            if value not in allowed:
                raise SettingsError(f"{name} must be one of {allowed}, got {value!r}")
        if absent := [str(root) for root in roots if not root.is_dir()]:
            raise BenchmarkError(f"{absent[0]} is not a folder")
        self.roots, self.task, self.mode, self.missing_images = list(roots), task, mode, missing_images
        self._items: list[dict[str, Any]] = []
        self._found: dict[tuple[str, ...], str] = {}
        self._missing: dict[str, None] = {}
        self._occurrences: Counter[str] = Counter()
        self._stated_ids: dict[str, str] = {}
        self._irregular: defaultdict[str, list[str]] = defaultdict(list)

    def add(
        self,
        where: str,
        image: Sequence[str],
        question: str,
        answer: str,
        task: str,
        choices: Mapping[str, str] | None = None,
        answer_choice: str | None = None,
        type: str = "",
        subtype: str = "",
        id: str | None = None,
        verbatim: str | None = None,
    ) -> None:
        """Add one item.

        Args:
            where: location of the item, such as "file, line 3".
            image: candidate paths of the image, file or folder, relative to the roots, most likely first. The same
                name with another suffix (.nii.gz, .nii, .npy, or none for a folder of slices) is found as well.
            question: the question, verbatim.
            answer: the reference answer.
            task: one of :data:`TASKS`.
            choices: letter -> text as stated in the file, for a closed question. Where the file states none beside the
                question, they are looked for at its end; "clean" mode then takes them off the question.
            answer_choice: letter of the correct choice.
            type: type of the question, for grouped scores.
            subtype: subtype of the question, for grouped scores.
            id: id stated in the file; None to derive the id from the content.
            verbatim: the original text, if the question is only a part of it.

        Raises:
            BenchmarkError: the question or answer is empty, the answer choice is not a letter, an id is duplicated, or
                the image exists in several formats.
        """
        for name, value in (("image", image[0]), ("question", question), ("answer", answer)):
            if not value.strip():
                raise BenchmarkError(f"{where}: the {name} is empty")
        if task != "closed":
            choices = answer_choice = None
        elif answer_choice is None or len(answer_choice) != 1 or not "A" <= answer_choice <= "Z":
            raise BenchmarkError(
                f"{where}: the answer choice of a closed question must be a letter from A to Z, found {answer_choice!r}"
            )
        identity = self._identity(where, id, [image[0], verbatim or question, answer, task, choices, type, subtype])
        if self.task not in (None, task):
            return
        if choices is not None and answer_choice is not None:
            shown = present_choices(choices, "clean")
            bare, listed = split_choices(question) if not shown else (question, {})
            if listed:
                choices, shown = listed, present_choices(listed, "clean")
                question = bare if self.mode == "clean" else question
            if shown and shown.get(answer_choice, "").strip() != answer.strip():
                self._irregular["answers that differ from the text of their choice (kept unchanged)"].append(where)
            choices = present_choices(choices, self.mode) or None
            if not shown:
                self._irregular["closed questions whose choices were not found (asked without a list)"].append(where)
        values = (self._locate(tuple(image), where), question, choices, answer, answer_choice, type, subtype)
        self._items.append(dict(zip(ITEM_KEYS, (*values, identity, task), strict=True)))

    def report(self, kind: str, where: str) -> None:
        """Record an irregularity; :meth:`datalist` logs how often each kind occurs and where first."""
        self._irregular[kind].append(where)

    def datalist(self) -> list[dict[str, Any]]:
        """Return the items in the order of the files; irregularities are logged as warnings.

        Raises:
            MissingImagesError: images are missing and ``missing_images`` is "refuse".
            BenchmarkError: there are no items.
        """
        if not self._items:
            raise BenchmarkError(f"no {self.task or ''} questions in the annotations of {self.roots[0]}")
        for kind, places in self._irregular.items():
            logger.warning("%d %s: %s", len(places), kind, _first(places))
        if self._missing:
            count = sum(item["image"] in self._missing for item in self._items)
            message = f"{len(self._missing)} images of {count} items are missing: {_first(list(self._missing))}"
            if self.missing_images == "refuse":
                raise MissingImagesError(
                    f"{message}. Complete the folder, or pass the right one with images. With missing_images='keep', "
                    "these items fail individually instead, and count with a score of 0."
                )
            logger.warning("%s; their items are kept and will fail", message)
        return self._items

    def _identity(self, where: str, stated: str | None, content: list[Any]) -> str:
        """Return the stated id of an item, or one derived from its content.

        A derived id does not depend on the mode, the order of the items or the selected part of the data set.
        """
        if stated is not None:
            if stated in self._stated_ids:
                raise BenchmarkError(f"{where}: the id {stated!r} is already used by {self._stated_ids[stated]}")
            self._stated_ids[stated] = where
            return stated
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        self._occurrences[digest] += 1
        if self._occurrences[digest] == 1:
            return digest
        self._irregular["rows that repeat an earlier row (kept as separate items)"].append(where)
        return f"{digest}-{self._occurrences[digest]}"

    def _locate(self, names: tuple[str, ...], where: str) -> str:
        if names not in self._found:
            candidates = [root / name for root in self.roots for name in names]
            path = next((path for path in candidates if path.exists()), None) or _other_format(candidates, where)
            self._found[names] = str(path or candidates[0])
            if path is None:
                self._missing[str(candidates[0])] = None
        return self._found[names]


def _other_format(paths: Sequence[Path], where: str) -> Path | None:
    """Find the same image in another format; at most one may exist."""
    found: dict[Path, None] = {}
    for path in paths:
        suffix = next((i for i in _VOLUME_SUFFIXES if path.name.lower().endswith(i)), "")
        stem = path.name[: len(path.name) - len(suffix)]
        found |= {other: None for i in (*_VOLUME_SUFFIXES, "") if (other := path.with_name(stem + i)).exists()}
    if len(found) > 1:
        raise BenchmarkError(
            f"{where}: {paths[0].name} exists in {len(found)} formats: {_first(list(map(str, found)))}. Keep one, or "
            "pass the folder of one with images."
        )
    return next(iter(found), None)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_LISTED]) + (", …" if len(names) > _MAX_LISTED else "")
