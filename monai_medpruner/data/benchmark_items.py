# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Questions of any benchmark as a MONAI datalist: one form, one set of checks, nothing swapped or dropped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_medpruner.errors import BenchmarkError, MissingImagesError, SettingsError

__all__ = ["ITEM_KEYS", "TASKS", "BenchmarkItems", "present_choices"]

logger = logging.getLogger(__name__)

#: the keys of every item
ITEM_KEYS = ("image", "question", "choices", "answer", "answer_choice", "type", "subtype", "id", "task")
#: "closed" questions have choices, "open" ones are answered in words, "report" asks for a whole report
TASKS = ("closed", "open", "report")
_ABSENT = ("", "-", "NA")
_LISTED = 3
_VOLUME_SUFFIXES = (".nii.gz", ".nii", ".npy")


def present_choices(cells: Mapping[str, str], mode: str) -> dict[str, str]:
    """Letter -> text of the choices to show: without those marked absent ("NA", "-", empty) in "clean" mode."""
    return {letter: text for letter, text in cells.items() if mode == "official" or text.strip() not in _ABSENT}


class BenchmarkItems:
    """Collects the items of a benchmark and checks each; :meth:`datalist` gives them, and says what is irregular.

    Args:
        roots: folders that paths of images may start from, searched in this order.
        task: keep only the items of this one of :data:`TASKS`; None for all.
        mode: "clean", or "official": absent choices stay in the items as the files write them.
        missing_images: "refuse", or "keep": an item stays with the path where its image should be, and fails on its own
            when it is read.

    Raises:
        SettingsError: a setting is not as described.
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
        self._own_ids: dict[str, str] = {}
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
            where: its place, such as "file, line 3".
            image: names of its image relative to the roots, the likeliest first: a file, or a folder. The same name
                with another ending (.nii.gz, .nii, .npy, or none for a folder of slices) is found as well.
            question: verbatim.
            answer: the reference.
            task: one of :data:`TASKS`.
            choices: letter -> text as the file has them, for a closed question.
            answer_choice: letter of the right choice.
            type: of the question, for the scores.
            subtype: likewise.
            id: its own; None to name it by its content.
            verbatim: the file's own words, where the question is a part of them.

        Raises:
            BenchmarkError: the question or answer is empty, the letter is none, an id is given twice, or several forms
                of the image are there.
        """
        for name, value in (("image", image[0]), ("question", question), ("answer", answer)):
            if not value.strip():
                raise BenchmarkError(f"{where}: the {name} is empty")
        if task != "closed":
            choices = answer_choice = None
        elif answer_choice is None or len(answer_choice) != 1 or not "A" <= answer_choice <= "Z":
            raise BenchmarkError(
                f"{where}: a closed question's answer choice must be a letter, found {answer_choice!r}"
            )
        identity = self._identity(where, id, [image[0], verbatim or question, answer, task, choices, type, subtype])
        if self.task not in (None, task):
            return
        if choices is not None and answer_choice is not None:
            shown = present_choices(choices, "clean")
            if shown and shown.get(answer_choice, "").strip() != answer.strip():
                self._irregular["answers that are not the text of their choice (kept as they are)"].append(where)
            choices = present_choices(choices, self.mode) or None
            if not shown:
                self._irregular["closed questions without choices beside them (kept as they are)"].append(where)
        values = (self._locate(tuple(image), where), question, choices, answer, answer_choice, type, subtype)
        self._items.append(dict(zip(ITEM_KEYS, (*values, identity, task), strict=True)))

    def report(self, kind: str, where: str) -> None:
        """Note something irregular that the user should hear of: how often, and where first."""
        self._irregular[kind].append(where)

    def datalist(self) -> list[dict[str, Any]]:
        """The items, in the order of the files; everything irregular is logged as a warning.

        Raises:
            MissingImagesError: images are missing and ``missing_images`` is "refuse".
            BenchmarkError: there is no item.
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
                    f"{message}. Complete the folder or name the right one with images; missing_images='keep' lets "
                    "these items fail one by one instead, counted and scored 0."
                )
            logger.warning("%s; their items are kept and will fail", message)
        return self._items

    def _identity(self, where: str, given: str | None, content: list[Any]) -> str:
        """An item's own id, or one by its content: the same in every mode, order and part of the data set."""
        if given is not None:
            if given in self._own_ids:
                raise BenchmarkError(f"{where}: the id {given!r} is that of {self._own_ids[given]}, too")
            self._own_ids[given] = where
            return given
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        self._occurrences[digest] += 1
        if self._occurrences[digest] == 1:
            return digest
        self._irregular["rows that repeat an earlier one (kept as items of their own)"].append(where)
        return f"{digest}-{self._occurrences[digest]}"

    def _locate(self, names: tuple[str, ...], where: str) -> str:
        if names not in self._found:
            candidates = [root / name for root in self.roots for name in names]
            path = next((path for path in candidates if path.exists()), None) or _other_form(candidates, where)
            self._found[names] = str(path or candidates[0])
            if path is None:
                self._missing[str(candidates[0])] = None
        return self._found[names]


def _other_form(paths: Sequence[Path], where: str) -> Path | None:
    """The image of the same name in another form, of which there may be one."""
    found: dict[Path, None] = {}
    for path in paths:
        suffix = next((i for i in _VOLUME_SUFFIXES if path.name.lower().endswith(i)), "")
        stem = path.name[: len(path.name) - len(suffix)]
        found |= {form: None for i in (*_VOLUME_SUFFIXES, "") if (form := path.with_name(stem + i)).exists()}
    if len(found) > 1:
        raise BenchmarkError(
            f"{where}: {paths[0].name} is there in {len(found)} forms: {_first(list(map(str, found)))}. Keep one, or "
            "name the folder of one with images."
        )
    return next(iter(found), None)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
