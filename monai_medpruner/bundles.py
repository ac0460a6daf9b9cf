# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Open a bundle from Python: its workflow, with overrides and objects, and its checkpoint."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from monai.bundle import ConfigWorkflow

from monai_medpruner.networks import Checkpoint
from monai_medpruner.networks.checkpoint import load_config
from monai_medpruner.networks.families import family_class
from monai_medpruner.settings import DEFAULT_BUNDLE, bundle_config, bundle_folders
from monai_medpruner.testing import TINY, save_tiny_checkpoint

__all__ = ["BundleWorkflow", "bundle_for_checkpoint", "bundle_for_model", "open_bundle", "open_checkpoint"]


class BundleWorkflow(ConfigWorkflow):
    """A bundle's workflow in which objects can replace parts of the configuration.

    MONAI executes and replaces texts of a configuration. Objects, such as a user's questions, are not parsed.

    Args:
        folder: folder of the bundle.
        overrides: configuration id -> value; see :func:`monai_medpruner.settings.setting_overrides`.
        objects: configuration id -> object, which is used unchanged.
        configs: names of the configuration files; later files override earlier ones.

    Raises:
        TypeError: an object is a text, a list or a dictionary, which MONAI would parse.
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
                # this workflow takes no texts from MONAI's command line
                command_line_texts=[],
                **(overrides or {}),
            )
        for name, value in (objects or {}).items():
            if isinstance(value, (str, list, dict)):
                raise TypeError(
                    f"{name} must be an object that MONAI does not parse, such as a tuple, got {type(value).__name__}"
                )
            self.parser[name] = value


@contextmanager
def _errors_only(name: str) -> Iterator[None]:
    """Suppress a logger's warnings. MONAI prints a warning on standard output if there is no logging file."""
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
    """Return the initialized workflow of a bundle.

    Args:
        folder: folder of the bundle.
        overrides: as in :class:`BundleWorkflow`.
        items: volumes and questions from :func:`monai_medpruner.data.question_items`; they replace those of the
            configuration.
        configs: as in :class:`BundleWorkflow`.
    """
    objects = {} if items is None else {"items": tuple(items)}
    workflow = BundleWorkflow(folder, overrides, objects, configs)
    workflow.initialize()
    return workflow


def bundle_for_model(model_type: str) -> Path:
    """Return the folder of the bundle for a model type. Supported types without a bundle get that of Qwen3-VL.

    Raises:
        UnsupportedModelError: no family supports the model type.
    """
    family_class(model_type)
    found = bundle_folders()
    for folder in found.values():
        if bundle_config(folder)["model_type"] == model_type:
            return folder
    return found[DEFAULT_BUNDLE]


def bundle_for_checkpoint(path_or_id: str, revision: str | None = None) -> Path:
    """Return the folder of the bundle for a checkpoint's model type.

    Args:
        path_or_id: a checkpoint folder or a Hub id.
        revision: commit of a Hub checkpoint.

    Raises:
        CheckpointError: the checkpoint is missing, gated, unreachable or incomplete.
        UnsupportedModelError: no family supports its model type.
    """
    return bundle_for_model(load_config(path_or_id, revision=revision).model_type)


def open_checkpoint(
    model_id: str,
    *,
    revision: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    attn_implementation: str | None = None,
    parts: Literal["all", "vision"] = "all",
    tiny_model_type: str = "qwen3_vl",
) -> Checkpoint:
    """Return the checkpoint of a bundle. It is loaded on first use.

    Args:
        model_id: Hub id, checkpoint folder, or "tiny" for a small model with random weights, whose answers are
            meaningless. The tiny model is written to a temporary folder and loaded like any other.
        revision: commit of a Hub checkpoint.
        device: as in :class:`~monai_medpruner.networks.Checkpoint`.
        dtype: as in :class:`~monai_medpruner.networks.Checkpoint`.
        attn_implementation: as in :class:`~monai_medpruner.networks.Checkpoint`.
        parts: as in :class:`~monai_medpruner.networks.Checkpoint`.
        tiny_model_type: model type of the tiny model.
    """
    loading: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "attn_implementation": attn_implementation,
        "parts": parts,
    }
    if model_id == TINY:
        return _TinyCheckpoint(tiny_model_type, **loading)
    return Checkpoint(model_id, revision=revision, **loading)


class _TinyCheckpoint(Checkpoint):
    """A small model with random weights, which is written and loaded on first use."""

    def __init__(self, model_type: str, **loading: Any) -> None:
        super().__init__(TINY, name=TINY, **loading)
        self.model_type = model_type

    @contextmanager
    def _folder(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            yield str(save_tiny_checkpoint(self.model_type, folder))
