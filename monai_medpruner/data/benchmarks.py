# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Registry of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.config import PathLike

from monai_medpruner.data.amos_mm import load_amos_mm
from monai_medpruner.data.m3d_vqa import load_m3d_vqa
from monai_medpruner.data.question_table import load_question_table
from monai_medpruner.data.rad3d import load_rad3d
from monai_medpruner.errors import SettingsError

__all__ = ["BENCHMARKS", "load_benchmark"]

#: name -> function that lists the items in a local folder as a MONAI datalist
BENCHMARKS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "amos_mm": load_amos_mm,
    "m3d_vqa": load_m3d_vqa,
    "question_table": load_question_table,
    "rad3d": load_rad3d,
}


def load_benchmark(name: str, folder: PathLike, **options: Any) -> list[dict[str, Any]]:
    """List the items of a benchmark from a local folder.

    Args:
        name: one of :data:`BENCHMARKS`.
        folder: local folder of the data set.
        options: keyword arguments of the benchmark's function.

    Returns:
        a MONAI datalist: one dictionary per question, with the keys of :data:`~.benchmark_items.ITEM_KEYS`.

    Raises:
        SettingsError: the benchmark is unknown.
        BenchmarkError: its files are missing or malformed.
    """
    if name not in BENCHMARKS:
        raise SettingsError(f"unknown benchmark {name!r}; expected one of: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name](folder, **options)
