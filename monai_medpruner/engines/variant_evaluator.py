# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Several ways to prune on one benchmark, each volume loaded and encoded once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.data import DataLoader, MetaTensor

from monai_medpruner.engines.benchmark_evaluator import BenchmarkEvaluator, Study
from monai_medpruner.errors import SettingsError
from monai_medpruner.handlers import PredictionFolder
from monai_medpruner.networks import EncodedVolume, VolumeQA, VolumeRecord
from monai_medpruner.pruners import TokenPruner
from monai_medpruner.results import StageTimes

__all__ = ["Variant", "VariantEvaluator"]


@dataclass(frozen=True)
class Variant:
    """One way to prune.

    Args:
        slices: transform of dictionaries that leaves some slices of "image" and adds its time to "seconds"; variants
            that share the object share its work.
        pruner: of tokens; None keeps all.
        settings: that say which way it is, as JSON holds them.
    """

    slices: Callable[[dict[str, Any]], dict[str, Any]]
    pruner: TokenPruner | None
    settings: Mapping[str, Any] = field(default_factory=dict)


class VariantEvaluator(BenchmarkEvaluator):
    """Evaluates several ways to prune.

    A volume is loaded once. The slices that any variant keeps are encoded once, and pruned in each way; where a token
    budget makes the size of a slice depend on how many are kept, once for each choice of slices. The time of the
    encoder in a line is that of the shared run: times are measured by an evaluation of its own.

    Each variant has a folder of its name with what :class:`BenchmarkEvaluator` writes, and a run that broke off goes
    on. ``rows`` then has their settings and metrics.

    Args:
        device: as in :class:`BenchmarkEvaluator`.
        val_data_loader: volumes before the filter of slices.
        network: as there; its own pruner is not used.
        items: as there.
        output_dir: holds the folders of the variants.
        protocol: as there.
        variants: name of the folder -> variant.
        settings: of all variants.
        definition: as there.
        wordnet: as there.
        fail_fast: as there.
        retry_failed: see :class:`~monai_medpruner.handlers.PredictionFolder`.
        val_handlers: as there.

    Raises:
        SettingsError: there is no variant, or as there.
    """

    def __init__(
        self,
        device: torch.device,
        val_data_loader: DataLoader,
        network: VolumeQA,
        items: Sequence[Mapping[str, Any]],
        output_dir: str | Path,
        protocol: str,
        variants: Mapping[str, Variant],
        settings: Mapping[str, Any] | None = None,
        definition: Mapping[str, Any] | None = None,
        wordnet: str | Path | None = None,
        fail_fast: bool = False,
        retry_failed: bool = False,
        val_handlers: Sequence | None = None,
    ) -> None:
        if not variants:
            raise SettingsError("there are no variants to evaluate")
        self.output_dir = Path(output_dir)
        folders = {PredictionFolder(self.output_dir / name, retry_failed): one for name, one in variants.items()}
        first = next(iter(folders))
        super().__init__(
            device, val_data_loader, network, items, first, protocol, {}, definition, wordnet, fail_fast, val_handlers
        )
        self.variants = folders
        self.folders = {
            folder: {**(settings or {}), **one.settings, "shared_encoder": True} for folder, one in folders.items()
        }
        self.rows: list[dict[str, Any]] = []

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Evaluate what is missing of every variant."""
        self.rows = []
        super().run(global_epoch)

    def _report(self, folder: PredictionFolder, lines: list[dict[str, Any]]) -> dict[str, Any]:
        metrics = super()._report(folder, lines)
        self.rows.append({**self.variants[folder].settings, "metrics": metrics})
        return metrics

    def _encode(self, volume: Any, seconds: Mapping[str, float]) -> list[Study]:
        filters = list(dict.fromkeys(one.slices for one in self.variants.values()))
        filtered = {one: one({"image": volume, "seconds": seconds}) for one in filters}
        pruners = list(dict.fromkeys(one.pruner for one in self.variants.values()))
        shared: dict[TokenPruner | None, EncodedVolume] = {}
        # a pruner of whole volumes must not see slices that another variant's filter keeps
        together = [one for one in pruners if one is None or not one.whole_volume or len(filters) == 1]
        if self.network.token_budget is None and together:
            union = sorted({index for data in filtered.values() for index in _indices(data["image"])})
            shared = self._pruned(_slices_of(volume, union), together)
        studies = []
        for one, data in filtered.items():
            own = {folder: variant for folder, variant in self.variants.items() if variant.slices is one}
            apart = [pruner for pruner in pruners if pruner not in shared and _asked(pruner, own)]
            encoded = {**shared, **(self._pruned(data["image"], apart) if apart else {})}
            for folder, variant in own.items():
                part = _part(encoded[variant.pruner], _indices(data["image"]))
                studies.append(Study(folder, part, data["image"].meta, data["seconds"]))
        return studies

    def _pruned(
        self, volume: torch.Tensor, pruners: Sequence[TokenPruner | None]
    ) -> dict[TokenPruner | None, EncodedVolume]:
        return dict(zip(pruners, self.network.encode_each(volume, pruners), strict=True))


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


def _asked(pruner: TokenPruner | None, variants: Mapping[PredictionFolder, Variant]) -> bool:
    return any(variant.pruner == pruner for variant in variants.values())
