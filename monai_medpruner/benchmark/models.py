# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The models of the benchmark by name: a bundle for the settings, and a checkpoint that all of its runs share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from monai_medpruner.benchmark.shapes import SHAPES, ShapeCheckpoint
from monai_medpruner.bundles import bundle_for_model, open_checkpoint
from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import Checkpoint
from monai_medpruner.settings import bundle_folders
from monai_medpruner.testing import TINY

__all__ = ["BenchmarkModel", "benchmark_model", "model_names"]

_PHANTOM = "medpruner_phantom"
_FAMILIES = ("qwen3_vl", "gemma3", "video_llama_3")


@dataclass(frozen=True, eq=False)
class BenchmarkModel:
    """A model under measurement.

    Args:
        name: as it was asked for.
        bundle: folder of the bundle whose settings apply.
        checkpoint: shared by all runs.
        depth: share of the published model's layers; 1 for a model that is what it is.
        said: what has to be said about it.
    """

    name: str
    bundle: Path
    checkpoint: Checkpoint
    depth: float
    said: tuple[str, ...]


def model_names() -> list[str]:
    """The names of the models; a checkpoint folder or a Hub id is one, too."""
    phantoms = [f"phantom:{family}" for family in _FAMILIES]
    return [TINY, *(f"{TINY}:{family}" for family in _FAMILIES[1:]), *phantoms, *(f"shape:{name}" for name in SHAPES)]


def benchmark_model(
    name: str,
    depth: float = 1.0,
    *,
    device: torch.device | str | None = None,
    dtype: str | None = None,
) -> BenchmarkModel:
    """Return a model by its name; its weights are made or loaded at the first use.

    Args:
        name: one of :func:`model_names`.
        depth: share of the layers of a ``shape:`` model, in ``(0, 1]``.
        device: None takes the first GPU, or the CPU.
        dtype: None takes bfloat16 on a GPU and float32 on a CPU.

    Raises:
        SettingsError: there is no such model, or it cannot be reduced.
    """
    kind, _, rest = name.partition(":")
    if kind == "shape" and rest in SHAPES:
        made = ShapeCheckpoint(SHAPES[rest], depth, device=device, dtype=dtype)
        return BenchmarkModel(name, bundle_for_model(made.shape.model_type), made, depth, tuple(made.reductions()))
    if name not in model_names():
        raise SettingsError(f"there is no model {name!r} to measure; there are: {', '.join(model_names())}")
    if depth != 1:
        raise SettingsError(f"only a shape: model can be reduced in depth, not {name!r}")
    if kind == TINY:
        family = rest or _FAMILIES[0]
        tiny = open_checkpoint(TINY, device=device, dtype=dtype, tiny_model_type=family)
        return BenchmarkModel(name, bundle_for_model(family), tiny, 1.0, ("random weights",))
    bundle = bundle_folders()[_PHANTOM]
    trained = Checkpoint(str(bundle / "models" / rest), name=name, device=device, dtype=dtype)
    return BenchmarkModel(name, bundle, trained, 1.0, ("small, trained on phantoms",))
