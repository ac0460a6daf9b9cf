# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Open a bundle from Python: its workflow, with settings and objects of one's own, and its checkpoint."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from monai_medpruner.networks import Checkpoint
from monai_medpruner.networks.checkpoint import load_config
from monai_medpruner.networks.families import family_class
from monai_medpruner.settings import DEFAULT_BUNDLE, bundle_config, bundle_folders
from monai_medpruner.testing import TINY, save_tiny_checkpoint

__all__ = ["BundleWorkflow", "bundle_for_checkpoint", "bundle_for_model", "open_bundle", "open_checkpoint"]


class BundleWorkflow(ConfigWorkflow):
    """A bundle's workflow for programs: objects can be put in the place of parts of its configuration.

    MONAI executes and replaces texts of a configuration. What a program has as objects, such as the questions that a
    user asks, does not pass through it here.

    Args:
        folder: of the bundle.
        overrides: id -> value, as text of a configuration; see :func:`monai_medpruner.settings.setting_overrides`.
        objects: id -> object, which stays as it is.
        configs: names of the configuration files, later ones on top of earlier ones.

    Raises:
        TypeError: an object is a text, a list or a dictionary, which MONAI would read.
    """

    def __init__(
        self,
        folder: Path,
        overrides: Mapping[str, Any] | None = None,
        objects: Mapping[str, Any] | None = None,
        configs: Sequence[str] = ("inference",),
    ) -> None:
        with _errors_only("monai.bundle.workflows"):
            super().__init__(
                config_file=[str(folder / "configs" / f"{name}.json") for name in configs],
                meta_file=str(folder / "configs" / "metadata.json"),
                logging_file=False,
                workflow_type="infer",
                bundle_root=str(folder),
                # no text of this workflow comes from MONAI's command line
                command_line_texts=[],
                **(overrides or {}),
            )
        for name, value in (objects or {}).items():
            if isinstance(value, (str, list, dict)):
                raise TypeError(f"{name} must be an object that MONAI does not read, got a {type(value).__name__}")
            self.parser[name] = value


@contextmanager
def _errors_only(name: str) -> Iterator[None]:
    """Keep a logger's warnings out; MONAI warns on standard output that no logging file is applied."""
    named = logging.getLogger(name)
    before = named.level
    named.setLevel(logging.ERROR)
    try:
        yield
    finally:
        named.setLevel(before)


def open_bundle(
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
    items: Sequence[Mapping[str, Any]] | None = None,
    configs: Sequence[str] = ("inference",),
) -> BundleWorkflow:
    """Return a bundle's workflow, initialized.

    Args:
        folder: of the bundle.
        overrides: as in :class:`BundleWorkflow`.
        items: volumes and questions, as :func:`monai_medpruner.data.question_items` gives them, in place of the
            configuration's own.
        configs: as in :class:`BundleWorkflow`.
    """
    objects = {} if items is None else {"items": tuple(items)}
    workflow = BundleWorkflow(folder, overrides, objects, configs)
    workflow.initialize()
    return workflow


def bundle_for_model(model_type: str) -> Path:
    """Return the folder of the bundle that is made for a model type; for other supported ones, that of Qwen3-VL.

    Raises:
        UnsupportedModelError: no family serves the model type.
    """
    family_class(model_type)
    found = bundle_folders()
    for folder in found.values():
        if bundle_config(folder)["model_type"] == model_type:
            return folder
    return found[DEFAULT_BUNDLE]


def bundle_for_checkpoint(path_or_id: str, revision: str | None = None) -> Path:
    """Return the folder of the bundle that is made for a checkpoint's model type.

    Args:
        path_or_id: a checkpoint folder or a Hub id.
        revision: commit of a Hub checkpoint.

    Raises:
        CheckpointError: the checkpoint is not there, gated, unreachable or incomplete.
        UnsupportedModelError: no family serves its model type.
    """
    return bundle_for_model(load_config(path_or_id, revision=revision).model_type)


def open_checkpoint(
    model_id: str,
    *,
    revision: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    attn_implementation: str | None = None,
    tiny_model_type: str = "qwen3_vl",
) -> Checkpoint:
    """Return the checkpoint of a bundle; it is loaded at its first use.

    Args:
        model_id: Hub id, checkpoint folder, or "tiny": a small model with random weights, whose answers mean nothing,
            written to a temporary folder and loaded like any other.
        revision: commit of a Hub checkpoint.
        device: as in :class:`~monai_medpruner.networks.Checkpoint`.
        dtype: as there.
        attn_implementation: as there.
        tiny_model_type: family of the tiny model.
    """
    loading: dict[str, Any] = {"device": device, "dtype": dtype, "attn_implementation": attn_implementation}
    if model_id == TINY:
        return _TinyCheckpoint(tiny_model_type, **loading)
    return Checkpoint(model_id, revision=revision, **loading)


class _TinyCheckpoint(Checkpoint):
    """A small model with random weights, which is written and loaded at its first use."""

    def __init__(self, model_type: str, **loading: Any) -> None:
        super().__init__(TINY, name=TINY, **loading)
        self.model_type = model_type

    @contextmanager
    def _folder(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            yield str(save_tiny_checkpoint(self.model_type, folder))
