# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A MONAI evaluator for benchmarks, which asks all questions about a volume in one iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import EventEnum, Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator

from monai_medpruner.data.benchmark_items import TASKS
from monai_medpruner.engines import VolumeQA
from monai_medpruner.errors import SettingsError, describe_error, ends_run
from monai_medpruner.evaluation.ask_together import ask_together
from monai_medpruner.evaluation.asked_item import AskedItem
from monai_medpruner.evaluation.item_groups import group_items, items_digest
from monai_medpruner.evaluation.prediction_folder import PredictionFolder
from monai_medpruner.evaluation.run_means import RunMeans
from monai_medpruner.evaluation.variants import Variant, encode_variants
from monai_medpruner.evaluation.worker_loss import is_worker_loss, worker_loss
from monai_medpruner.memory import is_out_of_memory, peak_memory, release_memory
from monai_medpruner.metrics import find_protocol, run_report
from monai_medpruner.metrics.scoring import write_json
from monai_medpruner.networks import EncodedStudy
from monai_medpruner.pruners import pruner_settings
from monai_medpruner.results import Answer, package_versions, result_line
from monai_medpruner.terminal_text import package_logger
from monai_medpruner.transforms import describe_transform

__all__ = ["BenchmarkEvaluator", "ItemEvents"]

logger = package_logger(__name__)


class ItemEvents(EventEnum):
    """ITEM_COMPLETED: a line was written to ``predictions.jsonl``; it is in ``engine.state.output``."""

    ITEM_COMPLETED = "item_completed"


class BenchmarkEvaluator(SupervisedEvaluator):
    """Asks all items of a benchmark for one or several variants, and writes ``predictions.jsonl`` and ``metrics.json``.

    Each volume is loaded, filtered, encoded and pruned once, for any number of questions, and freed afterward. Each
    answer is on disk before the next question is asked. Interrupted runs resume automatically. A failed item is
    recorded with the class of its error as "status" and scores 0. Under ``ignite.distributed``, each rank evaluates
    its share of the volumes.

    After each answer ``engine.state.metrics`` has what this run kept and spent so far, for MONAI's TensorBoard and
    MLflow handlers: ``retention_slices``, ``retention_tokens`` and ``seconds_STAGE``, as in
    :class:`~monai_medpruner.evaluation.VolumeEvaluator`; with several variants ``NAME/retention_slices`` and so on.

    The lines of ``predictions.jsonl`` follow :data:`~monai_medpruner.results.LINE_SCHEMA`.

    Args:
        device: device of the network.
        val_data_loader: loads one volume per batch. The ``data`` of its data set is replaced by the groups of items
            that are still to be asked. Groups that cannot be loaded may be returned with an "error"
            (:class:`~monai_medpruner.data.GuardedDataset`).
        network: answers the questions.
        items: items of the benchmark.
        output_dir: folder to write; each variant has a subfolder with its name.
        protocol: name of the protocol for prompts and scores.
        variants: pruning configurations that share the output of the encoder; None for the network's own pruner on the
            slices from the data loader. Each line contains the ``settings`` of its variant.
        settings: settings for each line, in addition to those of the network and the preprocessing. A run with other
            settings does not resume this one.
        max_new_tokens: task of an item ("closed", "open", "report") -> length limit of its answer; the engine's where
            there is none.
        wordnet: folder of WordNet for METEOR; see :func:`~monai_medpruner.metrics.score`.
        fail_fast: stop at the first error of an item, without recording it. Errors that concern the whole run, such as
            a language engine that does not answer, always stop it; the same command resumes it.
        retry_failed: ask items again that failed in an earlier run.
        val_handlers: as in ``SupervisedEvaluator``.

    Raises:
        SettingsError: there are no items or no variants, the protocol is unknown, or it has no prompt for an item.
    """

    network: Any
    data_loader: Any

    def __init__(
        self,
        device: torch.device,
        val_data_loader: DataLoader,
        network: VolumeQA,
        items: Sequence[Mapping[str, Any]],
        output_dir: str | Path,
        protocol: str,
        variants: Sequence[Variant] | None = None,
        settings: Mapping[str, Any] | None = None,
        max_new_tokens: Mapping[str, int | None] | None = None,
        wordnet: str | Path | None = None,
        fail_fast: bool = False,
        retry_failed: bool = False,
        val_handlers: Sequence | None = None,
    ) -> None:
        super().__init__(
            device=device,
            val_data_loader=val_data_loader,
            network=network,
            event_names=[ItemEvents],
            decollate=False,
        )
        # ignite would go on with a run that an exception has ended, in place of a new one
        self.interrupt_resume_enabled = False
        if not items:
            raise SettingsError("there are no items to evaluate")
        if variants is not None and not variants:
            raise SettingsError("there are no variants to evaluate")
        self.items = items
        self.single = variants is None
        self.variants = [Variant(pruner=network.encoder.pruner)] if variants is None else list(variants)  # type: ignore[attr-defined]
        self.folders = {one: PredictionFolder(Path(output_dir) / one.name, retry_failed) for one in self.variants}
        self.protocol = find_protocol(protocol)
        self.settings = dict(settings or {})
        if unknown := sorted((max_new_tokens or {}).keys() - set(TASKS)):
            raise SettingsError(f"max_new_tokens must name tasks of {TASKS}, got {unknown}")
        limits, asked = dict(max_new_tokens or {}), {item["task"] for item in items}
        self.max_new_tokens = {task: limit for task, limit in limits.items() if limit is not None and task in asked}
        self.wordnet = wordnet
        self.fail_fast = fail_fast
        self._asked: list[AskedItem] = []
        self._means = {one: RunMeans() for one in self.variants}
        self.add_event_handler(Events.EPOCH_COMPLETED, self._answer_all)
        for handler in val_handlers or ():  # behind the handler above, so that they see all answers
            handler.attach(self)
        group_items(items, self.protocol)  # checks that the protocol can ask all items, before a model is loaded

    def run(self, global_epoch: int = 1) -> list[dict[str, Any]]:  # type: ignore[override]
        """Ask the remaining items, then write ``metrics.json`` of each variant.

        Returns:
            The settings of each variant, with the name of its folder as "folder" and the content of ``metrics.json`` as
            "metrics"; empty on ranks other than 0.

        Raises:
            MixedRunError: a folder contains predictions of another run.
            MedPrunerError: the model cannot be loaded, or, with ``fail_fast``, an item failed.
        """
        ids = [str(item["id"]) for item in self.items]
        rows = []
        self._means = {one: RunMeans() for one in self.variants}
        self._asked = []  # what an interrupted run has left is asked anew
        try:
            done = {one: folder.open(self._identity(one), ids) for one, folder in self.folders.items()}
            self._open = {one: set(ids) - answered for one, answered in done.items()}
            self._ask(set.intersection(*done.values()), global_epoch)
            for one, folder in self.folders.items():
                lines = folder.finish(ids)
                if idist.get_rank() == 0:
                    rows.append({**one.settings, "folder": one.name, "metrics": self._report(one, lines)})
        finally:
            for folder in self.folders.values():
                folder.close()
        idist.barrier()
        return rows

    def _settings_of(self, variant: Variant) -> dict[str, Any]:
        """Return the settings in a variant's lines, derived from the objects in use."""
        transforms = [self.data_loader.dataset.transform, variant.slices]
        preprocessing = [stage for one in transforms if one is not None for stage in _stages(describe_transform(one))]
        described = {**self.network.describe(), "pruner": pruner_settings(variant.pruner)}
        shared = {} if self.single else {"shared_encoder": True}
        limits = {"max_new_tokens": self.max_new_tokens}
        return {**described, "preprocessing": preprocessing, **self.settings, **limits, **variant.settings, **shared}

    def _identity(self, variant: Variant) -> dict[str, Any]:
        """Return everything that the predictions depend on."""
        settings = self._settings_of(variant)
        # a run may resume on another device
        settings["model"] = {name: value for name, value in settings["model"].items() if name != "device"}
        items = {"count": len(self.items), "digest": items_digest(self.items)}
        return {"settings": settings, "protocol": self.protocol.name, "items": items}

    def _ask(self, done: set[str], global_epoch: int) -> None:
        """Evaluate this rank's share of the volumes with remaining questions."""
        if done:
            logger.info("%d of %d items have a prediction; asking the remaining ones", len(done), len(self.items))
        groups = group_items(self.items, self.protocol, done)
        self._run_groups(groups[idist.get_rank() :: idist.get_world_size()], global_epoch)

    def _run_groups(self, groups: list[dict[str, Any]], global_epoch: int) -> None:
        """Evaluate volumes. If a worker dies, those that it may have loaded are taken one by one, each by a new one."""
        loader = self.data_loader
        while groups:
            try:
                self._run_loader(groups, global_epoch)
                return
            except RuntimeError as error:
                if self.fail_fast or not is_worker_loss(error):
                    raise
                logger.warning("a worker of the data loader died; the next volumes are loaded one by one")
            self._answer_all()
            groups = [one for one in groups if self._remains(one)]
            ahead = loader.num_workers * ((loader.prefetch_factor or 0) + 1)
            for one in groups[:ahead]:
                try:
                    self._run_loader([one], global_epoch)
                except RuntimeError as error:
                    if not is_worker_loss(error):
                        raise
                    self._fail(one["items"], describe_error(worker_loss(error)))
            groups = groups[ahead:]

    def _run_loader(self, groups: list[dict[str, Any]], global_epoch: int) -> None:
        self.data_loader.dataset.data = groups
        self.state.epoch_length = len(groups)
        super().run(global_epoch)

    def _remains(self, group: Mapping[str, Any]) -> bool:
        """Return whether an item about a volume has no prediction yet."""
        return any(item["id"] in remaining for item in group["items"] for remaining in self._open.values())

    def _report(self, variant: Variant, lines: list[dict[str, Any]]) -> dict[str, Any]:
        metrics = run_report(lines, self.protocol.name, self.wordnet)
        metrics |= {"settings": self._settings_of(variant), "versions": package_versions()}
        metrics["world_size"] = idist.get_world_size()
        path = self.folders[variant].output_dir / "metrics.json"
        write_json(metrics, path)
        if metrics["settings"]["model"]["random_weights"]:
            logger.warning("the model has random weights: its answers and scores are meaningless")
        if metrics["failed"]:
            logger.warning("%d of %d items failed: %s", metrics["failed"], metrics["items"], metrics["errors"])
        if metrics["truncated"]:
            logger.warning("%d of %d answers ended at their length limit", metrics["truncated"], metrics["items"])
        accuracy = "no closed questions" if metrics["accuracy"] is None else f"accuracy {metrics['accuracy']:.2f} %"
        logger.info("%d items, %s; written to %s", metrics["items"], accuracy, path)
        self.state.metrics = metrics
        return metrics

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Answer every question about the volume of a batch."""
        if len(batchdata["items"]) != 1:
            raise SettingsError(f"expected one volume per batch, got {len(batchdata['items'])}: use a batch size of 1")
        items = batchdata["items"][0]
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if "error" in batchdata:
            self._fail(items, batchdata["error"][0])
            return self.state.output
        try:
            studies = self._encode(batchdata["image"][0])
        except Exception as error:
            self._fail(items, self._described(error))
            return self.state.output
        for variant, study in studies:
            asked = [item for item in items if item["id"] in self._open[variant]]
            self._asked += [AskedItem(variant, study, item, first=number == 0) for number, item in enumerate(asked)]
        if len(self._asked) >= self.network.engine.questions_at_once:
            self._answer_all()
        return self.state.output

    def _encode(self, volume: Any) -> list[tuple[Variant, EncodedStudy]]:
        if self.single:
            return [(self.variants[0], self.network.encode(volume))]
        return encode_variants(self.network, volume, self.variants)

    def _described(self, error: Exception) -> tuple[str, str]:
        """Return class and message of an error for its line; raise one that ends the run."""
        if self.fail_fast or ends_run(error) or is_worker_loss(error):  # that worker loads another volume
            raise error
        if is_out_of_memory(error):
            release_memory()
        return describe_error(error)

    def _answer_all(self) -> None:
        """Answer the questions about the volumes so far, as many together as the engine answers best."""
        asked, self._asked = self._asked, []
        size = self.network.engine.questions_at_once
        for start in range(0, len(asked), size):
            self._answer([self._pruned(one) for one in asked[start : start + size]])

    def _pruned(self, asked: AskedItem) -> AskedItem:
        """Prune a study for its question."""
        try:
            study = self.network.for_question(asked.study, asked.item["prompt"])
        except Exception as error:
            return replace(asked, error=self._described(error))
        return replace(asked, study=study, own_record=study.record is not asked.study.record)

    def _answer(self, asked: Sequence[AskedItem]) -> None:
        """Answer questions together, and write each line as soon as its answer is there."""
        limits = self.max_new_tokens
        valid = [(one.study, one.item["prompt"], limits.get(one.item["task"])) for one in asked if one.error is None]
        results = ask_together(self.network, valid, self._described)
        for one in asked:
            result = one.error or next(results)
            answer, error = (result, None) if isinstance(result, Answer) else (None, result)
            record = one.study.record
            if one.first or one.own_record:
                record.save(self.folders[one.variant].output_dir / "records" / f"{record.name}.safetensors")
            self._write(one.variant, one.item, record=record, answer=answer, error=error, first=one.first)

    def _fail(self, items: Sequence[dict[str, Any]], described: tuple[str, str]) -> None:
        """Record the items of a volume that could not be read or encoded."""
        for item in items:
            for variant in self.variants:
                if item["id"] in self._open[variant]:
                    self._write(variant, item, error=described)

    def _write(self, variant: Variant, item: dict[str, Any], **result: Any) -> None:
        if result.get("error") is not None:
            logger.warning("item %s failed: %s: %s", item["id"], *result["error"])
        # the answer of an item is the reference for the model's answer
        question = {**item, "reference": item["answer"], "reference_choice": item["answer_choice"]}
        line = result_line(question, self._settings_of(variant), peak_memory=peak_memory(), **result)
        self.folders[variant].append(line)
        if line["status"] == "ok":
            means = self._means[variant]
            means.add(line, line["seconds"])
            self.state.metrics.update(means.scalars(f"{variant.name}/" if variant.name else ""))
        self._open[variant].discard(item["id"])
        self.state.output = line
        self.fire_event(ItemEvents.ITEM_COMPLETED)


def _stages(description: Any) -> list[Any]:
    """Return a description of transforms as a list."""
    return list(description) if isinstance(description, list) else [description]
