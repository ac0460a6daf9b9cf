# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Model families: one file each, found by the ``model_type`` of a model's configuration."""

from __future__ import annotations

from transformers import PreTrainedModel

from monai_medpruner.errors import SettingsError, UnsupportedModelError
from monai_medpruner.networks.families.base import EncodedSlices, FamilySummary, ModelFamily
from monai_medpruner.networks.families.gemma3 import Gemma3Family
from monai_medpruner.networks.families.internvl import InternVLFamily
from monai_medpruner.networks.families.qwen2_5_vl import Qwen25VLFamily
from monai_medpruner.networks.families.qwen2_vl import Qwen2VLFamily
from monai_medpruner.networks.families.qwen3_vl import Qwen3VLFamily
from monai_medpruner.networks.families.video_llama3 import VideoLlama3Family

__all__ = [
    "FAMILIES",
    "EncodedSlices",
    "FamilySummary",
    "Gemma3Family",
    "InternVLFamily",
    "ModelFamily",
    "Qwen2VLFamily",
    "Qwen3VLFamily",
    "Qwen25VLFamily",
    "VideoLlama3Family",
    "family_class",
    "family_of",
    "register_family",
    "unregister_family",
]

#: every supported family; a new one adds its line here
FAMILIES: list[type[ModelFamily]] = [
    Qwen3VLFamily,
    Gemma3Family,
    Qwen25VLFamily,
    Qwen2VLFamily,
    InternVLFamily,
    VideoLlama3Family,
]


def register_family(family: type[ModelFamily]) -> None:
    """Add a family from outside the package; from then on it is found like those in :data:`FAMILIES`.

    Args:
        family: serves ``model_type``s that no registered family serves.

    Raises:
        SettingsError: one of its ``model_type``s is served already.
    """
    served = {name for one in FAMILIES for name in one.model_types}
    if taken := sorted(served.intersection(family.model_types)):
        raise SettingsError(f"{family.__name__} cannot be registered: model_type {taken[0]!r} is served already")
    FAMILIES.append(family)


def unregister_family(family: type[ModelFamily]) -> None:
    """Take a family that :func:`register_family` added away again.

    Raises:
        SettingsError: it is not registered.
    """
    if family not in FAMILIES:
        raise SettingsError(f"{family.__name__} is not registered")
    FAMILIES.remove(family)


def family_class(model_type: str) -> type[ModelFamily]:
    """Return the family that serves a ``model_type``.

    Raises:
        UnsupportedModelError: none does; the message names those that are supported and how to add one.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    supported = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise UnsupportedModelError(
        f"no family is registered for model_type {model_type!r}; supported are: {supported}. To add one, write a "
        "ModelFamily and give it to monai_medpruner.networks.families.register_family (see docs/new_family.md)."
    )


def family_of(model: PreTrainedModel) -> ModelFamily:
    """Return the family of a model, bound to it."""
    return family_class(model.config.model_type)(model)
