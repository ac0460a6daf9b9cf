# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Encoded phantoms, and questions about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_medpruner.bundles import BundleWorkflow
from monai_medpruner.data.phantom import PRESETS, phantom_command

__all__ = ["PHANTOM_BUNDLE", "QUESTIONS", "encoded_studies", "make_phantoms"]

PHANTOM_BUNDLE = Path(__file__).resolve().parents[2] / "bundles/medpruner_phantom"
QUESTIONS = (
    "In which plane was this CT acquired?",
    "In which contrast phase was this CT acquired?",
    "Which organ bears the lesion?",
    "Which abnormality does this CT show?",
)


def make_phantoms(folder: Path, count: int) -> Path:
    """Write small CT phantoms below a folder that does not exist yet."""
    phantom_command(count, 7, folder, PRESETS["small"])
    return folder


def encoded_studies(family: str, phantoms: Path, model: Path | None = None, **overrides: Any) -> tuple[Any, list[Any]]:
    """Return the bundle's network, with its own model or another one, and the encoded phantoms."""
    overrides |= {"family": family, "preset": "fast"} | ({} if model is None else {"model_id": str(model)})
    workflow = BundleWorkflow(PHANTOM_BUNDLE, overrides, configs=("inference", "preset_fast"))
    workflow.initialize()
    parser = workflow.parser
    network, load = parser.get_parsed_content("network_def"), parser.get_parsed_content("preprocessing")
    paths = sorted((phantoms / "volumes").glob("*.nii.gz"))
    return network, [network.encode(load({"image": str(path)})["image"]) for path in paths]
