# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What was kept of a volume, as a file; and what every result names."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from monai_medpruner.networks import VolumeRecord

__all__ = ["STAGES", "package_versions", "save_volume_record"]

#: the stages of work on a volume, in their order
STAGES = ("load", "filter", "encode", "select", "prefill", "decode")
_PACKAGES = ("monai-medpruner", "monai", "torch", "transformers", "numpy")


@cache
def package_versions() -> dict[str, str]:
    """The versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def save_volume_record(folder: Path, meta: Mapping[str, Any], record: VolumeRecord, settings: dict[str, Any]) -> None:
    """Write ``<volume_id>.safetensors``: what was kept of one volume, whole or not at all.

    Args:
        folder: where to write; it exists.
        meta: of the volume; read are ``volume_id``, ``affine``, and where they are there ``slice_positions_mm`` and
            ``plane``.
        record: what was kept.
        settings: of the run, written into the file's metadata.
    """
    slices = record.slices
    tensors = {
        "slice_indices": torch.tensor(record.slice_indices),
        "grids": torch.tensor([one.grid for one in slices]),
        "primary": torch.cat([one.primary for one in slices]),
        "contextual": torch.cat([one.contextual for one in slices]),
        "merged_into": torch.cat([one.merged_into for one in slices]),
        "affine": torch.as_tensor(meta["affine"], dtype=torch.float64).contiguous(),
        "slice_positions_mm": torch.tensor(list(meta.get("slice_positions_mm", ())), dtype=torch.float64),
    }
    if all(one.importance is not None for one in slices):
        tensors["importance"] = torch.cat([one.importance for one in slices])  # type: ignore[misc]
    facts = {
        "total_slices": record.total_slices,
        "plane": meta.get("plane"),
        "settings": settings,
        "versions": package_versions(),
    }
    target = folder / f"{meta['volume_id']}.safetensors"
    part = target.with_suffix(".part")
    save_file(tensors, part, metadata={name: json.dumps(value) for name, value in facts.items()})
    part.replace(target)
