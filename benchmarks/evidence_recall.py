# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Lesion recall: the fraction of lesions, lesion slices and lesion tokens that pruning keeps.

Counted from the records of a run and the masks of the phantoms.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from safetensors.torch import load_file
from torch.nn.functional import adaptive_avg_pool2d

from monai_medpruner.transforms import LoadVolumed, SlicePlaned


def lesion_recall(output: Path, data: Path) -> dict[str, dict[str, float]]:
    """Return the recall of lesions for each variant.

    Returns:
        variant -> fractions ``lesions`` (lesions with at least one kept slice), ``slices`` (kept lesion slices),
        ``tokens`` (kept lesion tokens) and ``tokens_of_kept_slices`` (kept lesion tokens in kept slices); and, if
        tokens were scored, ``lesion_importance`` and ``background_importance``, the mean attention relative to uniform
        on tokens of the lesion and of air.
    """
    images = {path.parent.name: volume_names(path) for path in output.glob("*/predictions.jsonl")}
    masks = {name: _masks(data, name) for name in sorted(set().union(*(one.values() for one in images.values())))}
    result = {}
    for variant, names in images.items():
        if variant in ("blind", "shuffled"):
            continue
        counts: dict[str, list[float]] = {}
        for volume, name in names.items():
            record = load_file(output / variant / "records" / f"{volume}.safetensors")
            for key, value in _counts(record, *masks[name]).items():
                counts.setdefault(key, []).append(value)
        sums = {key: sum(values) for key, values in counts.items()}
        result[variant] = {
            "lesions": sums["lesions_kept"] / sums["lesions"],
            "slices": sums["slices_kept"] / sums["slices"],
            "tokens": sums["tokens_kept"] / sums["tokens"],
            "tokens_of_kept_slices": sums["tokens_kept"] / max(1.0, sums["tokens_seen"]),
        }
        if "lesion_importance" in sums:
            for name in ("lesion", "background"):
                result[variant][f"{name}_importance"] = sums[f"{name}_importance"] / max(1.0, sums[f"{name}_scored"])
    return result


def volume_names(predictions: Path) -> dict[str, str]:
    """Return volume id -> file name."""
    lines = map(json.loads, predictions.read_text(encoding="utf-8").splitlines())
    return {line["volume_id"]: Path(line["image"]).name for line in lines if line["status"] == "ok"}


def _masks(data: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Lesion and organ mask ``(D, H, W)`` in the orientation of the model input."""
    load = Compose([LoadVolumed(["lesion", "organs"]), SlicePlaned(["lesion", "organs"])])
    loaded = load({"lesion": str(data / "lesions" / name), "organs": str(data / "organs" / name)})
    return tuple(loaded[key].as_tensor()[0].permute(2, 0, 1) > 0 for key in ("lesion", "organs"))  # type: ignore[return-value]


def _counts(record: dict[str, torch.Tensor], lesion: torch.Tensor, organs: torch.Tensor) -> dict[str, float]:
    rows, columns = record["grids"][0].tolist()
    kept = record["slice_indices"]
    tokens = adaptive_avg_pool2d(lesion.float()[:, None], (rows, columns)).flatten(1) > 0
    air = adaptive_avg_pool2d(organs.float()[:, None], (rows, columns)).flatten(1) == 0
    keep = (record["primary"] | record["contextual"]).reshape(len(kept), -1)
    lesion_slices = tokens.any(1)
    counts: dict[str, Any] = {
        "lesions": bool(lesion_slices.any()),
        "lesions_kept": bool(lesion_slices[kept].any()),
        "slices": lesion_slices.sum(),
        "slices_kept": lesion_slices[kept].sum(),
        "tokens": tokens.sum(),
        "tokens_seen": tokens[kept].sum(),
        "tokens_kept": (tokens[kept] & keep).sum(),
    }
    if "importance" in record:
        importance = record["importance"].reshape(len(kept), -1)
        for name, mask in (("lesion", tokens[kept]), ("background", air[kept])):
            counts |= {f"{name}_importance": importance[mask].sum(), f"{name}_scored": mask.sum()}
    return {key: float(value) for key, value in counts.items()}
