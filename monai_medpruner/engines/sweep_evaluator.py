# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""A grid of settings on one benchmark, each volume loaded and encoded once for all of them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.data import DataLoader, MetaTensor

from monai_medpruner.engines.benchmark_evaluator import BenchmarkEvaluator, Study
from monai_medpruner.errors import SettingsError
from monai_medpruner.handlers import PredictionFolder
from monai_medpruner.networks import EncodedVolume, VolumeQA, VolumeRecord
from monai_medpruner.networks.record import StageTimes
from monai_medpruner.pruners import TokenPruner
from monai_medpruner.report import write_sweep
from monai_medpruner.transforms import TimedCompose

__all__ = ["SweepEvaluator"]

logger = logging.getLogger(__name__)


class SweepEvaluator(BenchmarkEvaluator):
    """Evaluates every combination of γ, τ and temperature.

    A volume is loaded once. The slices that any γ keeps are encoded once, and pruned in each way; where a token budget
    makes the size of a slice depend on how many are kept, once for each γ. The time of the encoder in a line is that
    of the shared run: times are measured by an evaluation of its own.

    Each combination has a folder, ``gamma=…_tau=…_temperature=…``, with what :class:`BenchmarkEvaluator` writes, and a
    run that broke off goes on. ``sweep.csv`` and ``sweep.png`` have them all.

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
        after_filter: what is done to the slices that are left.
        token_pruner: makes the pruner of a ``tau`` and a ``temperature``.
        settings: of all combinations.
        definition: as there.
        wordnet: as there.
        fail_fast: as there.
        retry_failed: see :class:`~monai_medpruner.handlers.PredictionFolder`.
        val_handlers: as there.

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
        settings: Mapping[str, Any] | None = None,
        definition: Mapping[str, Any] | None = None,
        wordnet: str | Path | None = None,
        fail_fast: bool = False,
        retry_failed: bool = False,
        val_handlers: Sequence | None = None,
    ) -> None:
        for name, values in (("gammas", gammas), ("taus", taus), ("temperatures", temperatures)):
            if not values or len(set(values)) < len(values):
                raise SettingsError(f"{name} must be a list of different values, got {values!r}")
        self.output_dir = Path(output_dir)
        self.filters = {
            gamma: TimedCompose("filter", [slice_filter(threshold=gamma), *after_filter]) for gamma in gammas
        }
        combined = list(itertools.product(taus, temperatures))
        self.pruners = {pair: token_pruner(tau=pair[0], temperature=pair[1]) for pair in combined}
        grid = list(itertools.product(gammas, combined))
        self.grid = {place: PredictionFolder(self._folder(*place), retry_failed) for place in grid}
        first = next(iter(self.grid.values()))
        super().__init__(
            device, val_data_loader, network, items, first, protocol, {}, definition, wordnet, fail_fast, val_handlers
        )
        self.folders = {
            folder: {**(settings or {}), "gamma": gamma, "tau": tau, "temperature": temperature, "sweep": True}
            for (gamma, (tau, temperature)), folder in self.grid.items()
        }
        self.rows: list[dict[str, Any]] = []

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Evaluate what is missing of every combination, then write the table and the plot."""
        self.rows = []
        super().run(global_epoch)
        if idist.get_rank() == 0:
            write_sweep(self.rows, self.output_dir)

    def _folder(self, gamma: float | None, pair: tuple[float, float]) -> Path:
        name = f"gamma={'none' if gamma is None else f'{gamma:g}'}_tau={pair[0]:g}_temperature={pair[1]:g}"
        return self.output_dir / name

    def _report(self, folder: PredictionFolder, lines: list[dict[str, Any]]) -> dict[str, Any]:
        metrics = super()._report(folder, lines)
        chosen = {name: self.folders[folder][name] for name in ("gamma", "tau", "temperature")}
        self.rows.append({**chosen, "metrics": metrics})
        return metrics

    def _encode(self, volume: Any, seconds: Mapping[str, float]) -> list[Study]:
        filtered = {gamma: one({"image": volume, "seconds": seconds}) for gamma, one in self.filters.items()}
        kept = {gamma: list(_indices(data["image"])) for gamma, data in filtered.items()}
        shared: dict[tuple, EncodedVolume] = {}
        if self.network.token_budget is None:
            union = sorted(set().union(*kept.values()))
            shared = self._pruned(_slices_of(volume, union))
        studies = []
        for gamma, data in filtered.items():
            encoded = shared or self._pruned(data["image"])
            for pair, whole in encoded.items():
                part = _part(whole, kept[gamma])
                studies.append(Study(self.grid[gamma, pair], part, data["image"].meta, data["seconds"]))
        return studies

    def _pruned(self, volume: Any) -> dict[tuple, EncodedVolume]:
        encoded = self.network.encode_each(volume, list(self.pruners.values()))
        return dict(zip(self.pruners, encoded, strict=True))


def _indices(volume: Any) -> list[int]:
    return [int(index) for index in volume.meta.get("kept_indices", range(volume.shape[-1]))]


def _slices_of(volume: MetaTensor, indices: list[int]) -> MetaTensor:
    """Some slices of a volume; both count over the whole volume."""
    own = _indices(volume)
    part = MetaTensor(volume.as_tensor()[..., [own.index(index) for index in indices]]).copy_meta_from(volume)
    part.meta = {**volume.meta, "kept_indices": indices, "source_depth": volume.meta.get("source_depth", len(own))}
    return part


def _part(encoded: EncodedVolume, indices: list[int]) -> EncodedVolume:
    """What is kept of some of the encoded slices, with a record of its own."""
    record = encoded.record
    slices = encoded.slices.of_slices([record.slice_indices.index(index) for index in indices])
    spent = StageTimes(record.seconds[0])
    return EncodedVolume(
        slices, VolumeRecord(record.total_slices, indices, slices.records, [spent], list(record.notes))
    )
