# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The images and questions of a bundle run, taken verbatim from its configuration."""

from __future__ import annotations

import ast
import inspect
import os
import sys
from collections.abc import Sequence
from typing import Any

from monai.bundle import ConfigParser

from monai_medpruner.data.image_list import VERBATIM_HINT, image_items, pair_questions
from monai_medpruner.errors import SettingsError

__all__ = ["bundle_items", "raw_config", "require_items"]


def bundle_items(dataset_dir: str = "") -> list[dict[str, Any]]:
    """List the volumes of a bundle run with their questions.

    For a configuration that holds ``image``, ``question`` and ``questions_file``; called while it is parsed, through
    ``_target_``. MONAI executes a setting that begins with "$" and replaces one that begins with "@" or "%" as soon as
    another setting refers to it, so these three are read as they stand, and nothing may refer to them.

    Args:
        dataset_dir: folder that relative paths of images start from; empty for the working directory.

    Returns:
        Items ``{"image": path, "question": [text, ...]}``; none where no image was given.

    Raises:
        SettingsError: a value is not text (or a list of texts), or the command line changed it on its way.
        QuestionError: a question is not text, is empty, or too long.
        VolumeReadError: an image does not exist.
    """
    parser = _calling_parser()
    given = {name: parser.get(name) or None for name in ("image", "question", "questions_file")}
    for name, value in given.items():
        _check_untouched(name, value)
    image = given["image"]
    if dataset_dir and image is not None:
        image = [os.path.join(dataset_dir, one) for one in ([image] if isinstance(image, str) else image)]
    return pair_questions(image_items(image), given["question"], given["questions_file"])


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


def raw_config(names: Sequence[str]) -> dict[str, Any]:
    """Parts of a bundle's configuration as they are written, for telling one run from another.

    Called while the configuration is parsed, through ``_target_``.

    Args:
        names: top-level keys.
    """
    parser = _calling_parser()
    return {name: parser.get(name) for name in names}


def _calling_parser() -> ConfigParser:
    """The parser that is resolving the configuration which this call stands in."""
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(owner := frame.f_locals.get("self"), ConfigParser):
            return owner
        frame = frame.f_back
    raise SettingsError("bundle_items works inside a bundle configuration alone; call image_items and pair_questions")


def _check_untouched(name: str, value: Any) -> None:
    """Refuse a value that is no text, or that the command line's coercion changed ("Lesion #3" arrives as "Lesion")."""
    if value is None:
        return
    texts = value if isinstance(value, list) else [value]
    written = _on_command_line(name)
    changed = written is not None and value != written and value != _literal(written)
    if changed or not all(isinstance(text, str) for text in texts):
        arrived = type(value).__name__ if not isinstance(value, str) else repr(value)
        raise SettingsError(f"--{name} did not arrive as the text that was written but as {arrived}. {VERBATIM_HINT}")


def _on_command_line(name: str) -> str | None:
    """The text after ``--name`` on the command line, if it is there."""
    flag = f"--{name}"
    for index, argument in enumerate(sys.argv):
        if argument == flag and index + 1 < len(sys.argv):
            return sys.argv[index + 1]
        if argument.startswith(flag + "="):
            return argument[len(flag) + 1 :]
    return None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
