# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A grid of settings on one benchmark, each volume loaded and encoded once for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.data import DataLoader

from monai_medpruner.engines.variant_evaluator import Variant, VariantEvaluator
from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import VolumeQA
from monai_medpruner.pruners import TokenPruner
from monai_medpruner.report import write_sweep
from monai_medpruner.transforms import TimedCompose

__all__ = ["SweepEvaluator"]


class SweepEvaluator(VariantEvaluator):
    """Evaluates every combination of γ, τ and temperature; see :class:`VariantEvaluator`.

    The folders are named ``gamma=…_tau=…_temperature=…``; ``sweep.csv`` and ``sweep.png`` have them all.

    Args:
        device: as in :class:`BenchmarkEvaluator`.
        val_data_loader: volumes before the filter of slices.
        network: as there; its own pruner is not used.
        items: as there.
        output_dir: holds the folders of the combinations.
        protocol: as there.
        gammas: thresholds of the filter of slices; None keeps every slice.
        taus: shares of attention.
        temperatures: of the scores.
        slice_filter: makes the transform of dictionaries that leaves the slices of a ``threshold``, γ.
        token_pruner: makes the pruner of a ``tau`` and a ``temperature``.
        after_filter: what is done to the slices that are left.
        others: further arguments of :class:`VariantEvaluator`.

    Raises:
        SettingsError: a list is empty or has a value twice, or as there.
    """

    def __init__(
        self,
        device: torch.device,
        val_data_loader: DataLoader,
        network: VolumeQA,
        items: Sequence[Mapping[str, Any]],
        output_dir: str | Path,
        protocol: str,
        gammas: Sequence[float | None],
        taus: Sequence[float],
        temperatures: Sequence[float],
        slice_filter: Callable[..., Callable],
        token_pruner: Callable[..., TokenPruner | None],
        after_filter: Sequence[Callable] = (),
        **others: Any,
    ) -> None:
        for name, values in (("gammas", gammas), ("taus", taus), ("temperatures", temperatures)):
            if not values or len(set(values)) < len(values):
                raise SettingsError(f"{name} must be a list of different values, got {values!r}")
        filters = {gamma: TimedCompose("filter", [slice_filter(threshold=gamma), *after_filter]) for gamma in gammas}
        variants = {
            _name(gamma, tau, temperature): Variant(
                filters[gamma],
                token_pruner(tau=tau, temperature=temperature),
                {"gamma": gamma, "tau": tau, "temperature": temperature},
            )
            for gamma, tau, temperature in itertools.product(gammas, taus, temperatures)
        }
        super().__init__(device, val_data_loader, network, items, output_dir, protocol, variants, **others)

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Evaluate what is missing of every combination, then write the table and the plot."""
        super().run(global_epoch)
        if idist.get_rank() == 0:
            write_sweep(self.rows, self.output_dir)


def _name(gamma: float | None, tau: float, temperature: float) -> str:
    return f"gamma={'none' if gamma is None else f'{gamma:g}'}_tau={tau:g}_temperature={temperature:g}"
