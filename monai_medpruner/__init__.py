# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Training-free pruning of slices and visual tokens for 3-D medical vision-language models (MedPruner).

The public names can be imported from here. Each is looked up in its part of the package when it is first asked for, so
that ``import monai_medpruner`` itself loads neither PyTorch nor MONAI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_medpruner.engines import TransformersEngine, VolumePrompt, VolumeQA
    from monai_medpruner.errors import MedPrunerError
    from monai_medpruner.networks import Checkpoint, EncodedStudy, PrunedVLM, StudyKey, TransformersEncoder
    from monai_medpruner.pruners import AveragePoolingPruner, NucleusPruner, RandomTokensPruner, TokenPruner
    from monai_medpruner.results import Answer, SliceRecord, StudyRecord
    from monai_medpruner.transforms import (
        CheckVolumed,
        HUWindowsd,
        IntensityWindowsd,
        InterSliceAnchorFilterd,
        LoadVolumed,
        SliceLimitd,
        SlicePlaned,
        SliceRanged,
    )

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AveragePoolingPruner",
    "CheckVolumed",
    "Checkpoint",
    "EncodedStudy",
    "HUWindowsd",
    "IntensityWindowsd",
    "InterSliceAnchorFilterd",
    "LoadVolumed",
    "MedPrunerError",
    "NucleusPruner",
    "PrunedVLM",
    "RandomTokensPruner",
    "SliceLimitd",
    "SlicePlaned",
    "SliceRanged",
    "SliceRecord",
    "StudyKey",
    "StudyRecord",
    "TokenPruner",
    "TransformersEncoder",
    "TransformersEngine",
    "VolumePrompt",
    "VolumeQA",
    "__version__",
]

_PARTS = {
    "engines": ("TransformersEngine", "VolumePrompt", "VolumeQA"),
    "errors": ("MedPrunerError",),
    "networks": ("Checkpoint", "EncodedStudy", "PrunedVLM", "StudyKey", "TransformersEncoder"),
    "pruners": ("AveragePoolingPruner", "NucleusPruner", "RandomTokensPruner", "TokenPruner"),
    "results": ("Answer", "SliceRecord", "StudyRecord"),
    "transforms": (
        "CheckVolumed",
        "HUWindowsd",
        "IntensityWindowsd",
        "InterSliceAnchorFilterd",
        "LoadVolumed",
        "SliceLimitd",
        "SlicePlaned",
        "SliceRanged",
    ),
}
_PART_OF = {name: part for part, names in _PARTS.items() for name in names}


# There is no __dir__ beside it: MONAI's component locator gets every name that dir() lists, of every module whose name
# begins with "monai", and would import all parts whenever a bundle is read.
def __getattr__(name: str) -> Any:
    """Import a public name from its part of the package (PEP 562)."""
    if name not in _PART_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PART_OF[name]}"), name)
