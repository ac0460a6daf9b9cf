# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The short way to a bundle's run: a volume, a question, an answer as it is generated."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from monai_medpruner.ask_arguments import SETTINGS, bundles
from monai_medpruner.data import image_items, pair_questions, require_items
from monai_medpruner.errors import SettingsError
from monai_medpruner.networks.checkpoint import load_config
from monai_medpruner.networks.families import family_class
from monai_medpruner.testing import TINY

__all__ = ["ask", "bundle_folder", "open_bundle", "plain_text", "setting_overrides"]

_DEFAULT_BUNDLE = "medpruner_qwen3vl"


def bundle_folder(model_type: str) -> Path:
    """Return the bundle whose settings are made for a model type; for other supported ones, Qwen3-VL's.

    Raises:
        UnsupportedModelError: no family serves the model type.
    """
    family_class(model_type)
    found = bundles()
    for folder in found.values():
        if _config(folder)["model_type"] == model_type:
            return folder
    return found[_DEFAULT_BUNDLE]


def ask(arguments: argparse.Namespace) -> None:
    """Run a bundle on the images and questions, and write each answer to standard output as it is generated.

    Raises:
        MedPrunerError: whatever is wrong with the images, the questions, the settings or the model.
    """
    items = pair_questions(image_items(arguments.image), arguments.question or None, arguments.questions_file)
    require_items(items)
    folder = _chosen_bundle(arguments)
    workflow = open_bundle(folder, dict(setting_overrides(vars(arguments))))
    # neither images nor questions pass through the configuration, which would execute them
    workflow.dataset.data = items
    workflow.network_def.stream = _Answers([text for item in items for text in item["question"]])
    workflow.evaluator.run()


def open_bundle(folder: Path, overrides: Mapping[str, Any]) -> ConfigWorkflow:
    """Return a bundle's inference workflow, initialized.

    Args:
        folder: of the bundle.
        overrides: of its configuration, which executes them; see :func:`setting_overrides`.
    """
    workflow = ConfigWorkflow(
        config_file=str(folder / "configs" / "inference.json"),
        meta_file=str(folder / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="infer",
        bundle_root=str(folder),
        **overrides,
    )
    workflow.initialize()
    return workflow


def _chosen_bundle(arguments: argparse.Namespace) -> Path:
    if arguments.bundle is not None:
        return bundles()[arguments.bundle]
    if arguments.model in (None, TINY):
        return bundles()[_DEFAULT_BUNDLE]
    return bundle_folder(load_config(arguments.model, revision=arguments.revision).model_type)


def setting_overrides(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings that a user gave as text, as values of a bundle's configuration.

    Args:
        given: "model" and the names of ``ask_arguments.SETTINGS``, each with its text, or None or absent where it was
            not given; others are not looked at.

    Raises:
        SettingsError: a text is no number where one is needed, or a configuration would execute it.
    """
    if given.get("model") is not None:
        yield "model_id", plain_text("model", given["model"])
        if given.get("revision") is None:
            # the bundle pins the revision of its own model
            yield "revision", None
    for name, kind in SETTINGS.items():
        text = given.get(name)
        if text is None:
            continue
        if kind is str or text == "none":
            yield name, plain_text(name, text)
            continue
        try:
            yield name, kind(text)
        except ValueError as error:
            raise SettingsError(f"--{name} must be a number or none, got {text!r}") from error


def plain_text(name: str, text: str) -> str:
    """Return a setting's text; refuse what a bundle's configuration would execute or replace.

    Raises:
        SettingsError: the text begins with $, @ or %, or holds #.
    """
    if text.startswith(("$", "@", "%")) or "#" in text:
        raise SettingsError(f"--{name} must not begin with $, @ or %, nor hold #: a bundle would execute or replace it")
    return text


def _config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "configs" / "inference.json").read_text(encoding="utf-8"))


class _Answers:
    """Writes answers to standard output as they come, under their questions where there are several."""

    def __init__(self, questions: list[str]) -> None:
        self.questions = iter(questions) if len(questions) > 1 else None
        self.begins = True

    def __call__(self, piece: str, ends: bool) -> None:
        if self.begins and self.questions is not None:
            sys.stdout.write(f"> {next(self.questions)}\n")
        sys.stdout.write(piece + "\n" * ends)
        sys.stdout.flush()
        self.begins = ends
