# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""MONAI's evaluator over a benchmark: a volume at a time, every question about it, nothing lost."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import EventEnum
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator

from monai_medpruner.engines.item_groups import group_items, items_digest
from monai_medpruner.errors import SettingsError, describe_error
from monai_medpruner.handlers import PredictionFolder
from monai_medpruner.handlers.volume_record_file import STAGES, package_versions, save_volume_record
from monai_medpruner.memory import is_out_of_memory, peak_memory, release_memory
from monai_medpruner.metrics import find_protocol, run_report
from monai_medpruner.metrics.scoring import write_json
from monai_medpruner.networks import EncodedVolume, VolumeQA
from monai_medpruner.networks.checkpoint_files import checkpoint_digest
from monai_medpruner.transforms.slice_plane import SLICE_ORDERS

__all__ = ["BenchmarkEvaluator", "ItemEvents"]

logger = logging.getLogger(__name__)

# of an item, into its line
_ITEM_FIELDS = ("id", "image", "question", "prompt", "reference", "choices", "answer_choice", "type", "subtype", "task")


class ItemEvents(EventEnum):
    """ITEM_COMPLETED: a line was written; it is ``engine.state.output``."""

    ITEM_COMPLETED = "item_completed"


@dataclass
class Study:
    """A volume as one folder's questions are asked about it.

    Args:
        folder: where the answers go.
        encoded: the tokens that are kept.
        meta: of the volume.
        seconds: of the stages before the encoder.
    """

    folder: PredictionFolder
    encoded: EncodedVolume
    meta: Mapping[str, Any]
    seconds: Mapping[str, float]


class BenchmarkEvaluator(SupervisedEvaluator):
    """Asks every item of a benchmark and writes ``predictions.jsonl`` and ``metrics.json``.

    A volume is loaded, filtered, encoded and pruned once, whatever the number of its questions, and nothing of it stays
    in memory afterward. Each answer is on disk before the next question; a second run asks only what the first one did
    not come to. An item that fails has its error's class as "status", scores 0 and is counted. Under
    ``ignite.distributed`` each rank takes its share of the volumes.

    A line of ``predictions.jsonl`` holds ``id``, ``image``, ``question``, ``prompt`` (what was asked), ``prediction``,
    ``reference``, ``choices``, ``answer_choice``, ``type``, ``subtype``, ``task``, ``status`` ("ok" or an error's
    class), ``error`` (its message), and, where the volume was encoded, what was kept of it: ``volume_id``, ``source``,
    ``plane``, ``order``, ``slices``, ``tokens``, ``retention``, ``seconds`` (the first question about a volume bears
    the stages that all share), ``peak_memory_mb``, ``notes``; and ``settings`` and ``versions``.

    Args:
        device: of the network.
        val_data_loader: one volume a batch, over a data set with a replaceable ``data``: it is given the groups of
            items that are still to be asked, and may give groups back with an "error"
            (:class:`~monai_medpruner.data.GuardedDataset`).
        network: answers questions.
        items: of the benchmark.
        folder: where to write.
        protocol: how to ask and score; a name.
        settings: what goes into each line beside the network's own settings. Runs with other settings do not resume
            this one.
        definition: further parts of the configuration that the predictions depend on; as settings, but not written
            into each line.
        wordnet: folder of WordNet for METEOR; see :func:`~monai_medpruner.metrics.score`.
        fail_fast: end the run with an item's error, which is then not recorded.
        val_handlers: as in ``SupervisedEvaluator``.

    Raises:
        SettingsError: there is no item, the protocol is unknown, or has no such questions.
    """

    network: Any
    data_loader: Any

    def __init__(
        self,
        device: torch.device,
        val_data_loader: DataLoader,
        network: VolumeQA,
        items: Sequence[Mapping[str, Any]],
        folder: PredictionFolder,
        protocol: str,
        settings: Mapping[str, Any] | None = None,
        definition: Mapping[str, Any] | None = None,
        wordnet: str | Path | None = None,
        fail_fast: bool = False,
        val_handlers: Sequence | None = None,
    ) -> None:
        super().__init__(
            device=device,
            val_data_loader=val_data_loader,
            network=network,
            val_handlers=val_handlers,
            event_names=[ItemEvents],
            decollate=False,
        )
        if not items:
            raise SettingsError("there are no items to evaluate")
        self.items = items
        # where to write, and the settings of what is written there
        self.folders: dict[PredictionFolder, dict[str, Any]] = {folder: dict(settings or {})}
        self.protocol = find_protocol(protocol)
        self.definition = dict(definition or {})
        self.wordnet = wordnet
        self.fail_fast = fail_fast
        group_items(items, self.protocol)  # refuses what the protocol cannot ask, before a model is loaded

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Ask what is still to be asked, then write ``metrics.json``; it is ``state.metrics`` as well, on rank 0.

        Raises:
            MixedRunError: the folder holds predictions of something else.
            MedPrunerError: the model cannot be loaded, or, with ``fail_fast``, the error of an item.
        """
        ids = [str(item["id"]) for item in self.items]
        try:
            done = {folder: folder.open(self._identity(folder), ids) for folder in self.folders}
            self._open = {folder: set(ids) - answered for folder, answered in done.items()}
            self._ask(set.intersection(*done.values()), global_epoch)
            for folder in self.folders:
                lines = folder.finish(ids)
                if idist.get_rank() == 0:
                    self.state.metrics = self._report(folder, lines)
        finally:
            for folder in self.folders:
                folder.close()
        idist.barrier()

    def _identity(self, folder: PredictionFolder) -> dict[str, Any]:
        """What the predictions depend on."""
        # another GPU of the same kind may go on
        model = {name: value for name, value in self.network.settings.items() if name != "device"}
        return {
            "settings": self.folders[folder],
            "model": {**model, "checkpoint": checkpoint_digest(self.network.model_id)},
            "prompt": asdict(self.network.prompt),
            "definition": self.definition,
            "protocol": self.protocol.name,
            "items": {"count": len(self.items), "digest": items_digest(self.items)},
        }

    def _ask(self, done: set[str], global_epoch: int) -> None:
        """Go through this rank's share of the volumes with open questions."""
        if done:
            logger.info("%d of %d items have a prediction; going on with the others", len(done), len(self.items))
        groups = group_items(self.items, self.protocol, done)
        share = groups[idist.get_rank() :: idist.get_world_size()]
        self.data_loader.dataset.data = share
        self.state.epoch_length = len(share)
        if share:
            super().run(global_epoch)

    def _report(self, folder: PredictionFolder, lines: list[dict[str, Any]]) -> dict[str, Any]:
        metrics = run_report(lines, self.protocol.name, self.wordnet)
        metrics |= {"settings": self._settings_of(folder), "prompt": asdict(self.network.prompt)}
        metrics |= {"versions": package_versions(), "world_size": idist.get_world_size()}
        path = folder.output_dir / "metrics.json"
        write_json(metrics, path)
        if self.network.settings["random_weights"]:
            logger.warning("the model has random weights: its answers, and their scores, mean nothing")
        if metrics["failed"]:
            logger.warning("%d of %d items failed: %s", metrics["failed"], metrics["items"], metrics["errors"])
        accuracy = "no closed questions" if metrics["accuracy"] is None else f"accuracy {metrics['accuracy']:.2f} %"
        logger.info("%d items, %s; written to %s", metrics["items"], accuracy, path)
        return metrics

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Answer every question about the volume of a batch."""
        if len(batchdata["items"]) != 1:
            raise SettingsError(f"expected one volume a batch, got {len(batchdata['items'])}: use a batch size of 1")
        items = batchdata["items"][0]
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if "error" in batchdata:
            self._fail(items, batchdata["error"][0])
            return self.state.output
        try:
            studies = self._encode(batchdata["image"][0], batchdata["seconds"][0])
        except Exception as error:
            self._fail(items, self._described(error))
            return self.state.output
        for study in studies:
            settings = self._settings_of(study.folder)
            save_volume_record(study.folder.output_dir / "records", study.meta, study.encoded.record, settings)
            for item in items:
                if item["id"] in self._open[study.folder]:
                    self._answer(study, item)
        return self.state.output

    def _encode(self, volume: Any, seconds: Mapping[str, float]) -> list[Study]:
        """Encode a volume and prune it in every way that there is a folder for."""
        (folder,) = self.folders
        return [Study(folder, self.network.encode(volume), volume.meta, seconds)]

    def _settings_of(self, folder: PredictionFolder) -> dict[str, Any]:
        """The settings that a folder's lines bear."""
        return {**self.folders[folder], **self.network.settings}

    def _described(self, error: Exception) -> tuple[str, str]:
        """An error as it is recorded; with ``fail_fast`` it goes on its way instead."""
        if self.fail_fast:
            raise error
        if is_out_of_memory(error):
            release_memory()
        return describe_error(error)

    def _answer(self, study: Study, item: dict[str, Any]) -> None:
        prediction, status, message = "", "ok", None
        first = not study.encoded.asked
        try:
            prediction = self.network.answer(study.encoded, item["prompt"])
        except Exception as error:
            status, message = self._described(error)
        meta, record, peak = study.meta, study.encoded.record, peak_memory()
        spent = {**(study.seconds if first else {}), **record.seconds[-1]}
        kept = {
            "volume_id": meta["volume_id"],
            "source": meta.get("source"),
            "plane": meta.get("plane"),
            "order": _slice_order(meta),
            "slices": {
                "total": record.total_slices,
                "kept": len(record.slice_indices),
                "indices": record.slice_indices,
            },
            "tokens": {"unpruned": record.unpruned_tokens, "kept": sum(record.kept_tokens)},
            "retention": {name: round(value, 6) for name, value in record.retention.items()},
            "seconds": {stage: round(spent.get(stage, 0.0), 6) for stage in STAGES},
            "peak_memory_mb": None if peak is None else round(peak / 1e6, 1),
            "notes": [*meta.get("notes", ()), *record.notes],
        }
        self._write(study.folder, item, {"prediction": prediction, "status": status, "error": message, **kept})

    def _fail(self, items: Sequence[dict[str, Any]], described: tuple[str, str]) -> None:
        """Record the items of a volume that could not be read or encoded."""
        status, message = described
        for item in items:
            for folder, open_ids in self._open.items():
                if item["id"] in open_ids:
                    self._write(folder, item, {"prediction": "", "status": status, "error": message})

    def _write(self, folder: PredictionFolder, item: dict[str, Any], result: dict[str, Any]) -> None:
        if result["status"] != "ok":
            logger.warning("item %s failed: %s: %s", item["id"], result["status"], result["error"])
        known = {name: item["answer" if name == "reference" else name] for name in _ITEM_FIELDS}
        line = {**known, **result, "settings": self._settings_of(folder), "versions": package_versions()}
        # what was asked and what was answered stand together
        order = ("id", "image", "question", "prompt", "prediction", "reference")
        line = {**{name: line[name] for name in order}, **line}
        folder.append(line)
        self.state.output = line
        self.fire_event(ItemEvents.ITEM_COMPLETED)


def _slice_order(meta: Mapping[str, Any]) -> str | None:
    """From where to where a volume's slices run; files without geometry do not tell."""
    return "as stored" if meta.get("source") in ("npy", "images") else SLICE_ORDERS.get(meta.get("plane", ""))
