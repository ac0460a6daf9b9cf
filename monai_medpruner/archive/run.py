# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""An archive run: the one process that writes, and what it does when others end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from monai_medpruner.archive.pipeline import ATTEMPTS, Workers, described_settings, ray_cluster, streamed
from monai_medpruner.archive.stages import BundleSettings
from monai_medpruner.archive.transit import StudyInTransit
from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.errors import ArchiveWorkerError, SettingsError
from monai_medpruner.evaluation import PredictionFolder
from monai_medpruner.evaluation.item_groups import items_digest
from monai_medpruner.results import result_line
from monai_medpruner.terminal_text import package_logger

__all__ = ["answer_archive"]

logger = package_logger(__name__)

_OK = "ok"
#: how often studies that were lost are sent again, from the start
ROUNDS = 2


def answer_archive(
    items: Sequence[Mapping[str, Any]],
    output_dir: str | Path,
    settings: BundleSettings,
    *,
    address: str | None = None,
    workers: Workers | None = None,
    buffer_gb: float | None = None,
    retry_failed: bool = False,
) -> list[dict[str, Any]]:
    """Answer questions about many studies on one machine or a cluster, and write ``predictions.jsonl`` and records.

    The folder is that of an evaluation (:class:`~monai_medpruner.evaluation.PredictionFolder`). This process alone
    writes to it. A run that was interrupted, in any process, resumes where it ended.

    Args:
        items: from :func:`~monai_medpruner.archive.archive_items`.
        output_dir: folder to write.
        settings: bundle and settings.
        address: of a Ray cluster; see :func:`~monai_medpruner.archive.pipeline.ray_cluster`.
        workers: processes of each stage.
        buffer_gb: GB of studies on the way between the stages.
        retry_failed: ask again what failed in an earlier run.

    Returns:
        All lines, in the order of the items.

    Raises:
        SettingsError: there are no items, or a setting is not possible here.
        MixedRunError: the folder has predictions of another run, or another run is active.
        MedPrunerError: the model cannot be loaded, or a language engine does not answer.
        ArchiveWorkerError: a process cannot start.
    """
    if not items:
        raise SettingsError("there are no questions")
    if buffer_gb is not None and not buffer_gb > 0:
        raise SettingsError(f"buffer_gb must be positive, got {buffer_gb}")
    if settings.overrides.get("cache_dir") is not None:
        raise SettingsError("an archive run keeps no cache of studies: leave out cache_dir")
    ids = [str(item["id"]) for item in items]
    folder = PredictionFolder(output_dir, retry_failed)
    with ray_cluster(address, buffer_gb):
        described = described_settings(settings)
        try:
            done = folder.open(_identity(described, items), ids)
            if done:
                logger.info("%d of %d questions have a prediction; asking the remaining ones", len(done), len(ids))
            in_process = described["engine"].get("where") != "server"
            missing = [dict(item) for item in items if item["id"] not in done]
            for _ in range(ROUNDS):  # a machine that ends takes all attempts of its studies with it
                if groups := _groups(missing):
                    streams = streamed(groups, settings, answer_on_gpu=in_process, workers=workers, buffer_gb=buffer_gb)
                    missing = _write(folder, streams, groups)
            _write_lost(folder, missing, described)
            return folder.finish(ids)
        finally:
            folder.close()


def _identity(described: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return everything that the predictions depend on; a run may resume on another device."""
    model = {name: value for name, value in described["model"].items() if name != "device"}
    digest = {"count": len(items), "digest": items_digest(items)}
    return {"settings": {**described, "model": model}, "items": digest}


def _groups(items: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the questions about each study."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        groups.setdefault(item["image"], []).append(item)
    return list(groups.values())


def _write(folder: PredictionFolder, studies: Any, groups: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Write the lines of studies as they come, and return the questions of those that did not come."""
    missing = {item["id"]: item for group in groups for item in group}
    failed: Counter[str] = Counter()
    with tqdm(total=len(groups), desc="studies", unit="study") as progress:
        for study in studies:
            _write_study(folder, study)
            for line in study.lines:
                missing.pop(line["id"])
                if line["status"] != _OK:
                    failed[line["status"]] += 1
                    logger.warning("question %s failed: %s: %s", line["id"], line["status"], line["error"])
            if failed:
                progress.set_postfix(failed=sum(failed.values()))
            progress.update()
    return list(missing.values())


def _write_study(folder: PredictionFolder, study: StudyInTransit) -> None:
    for name, content in study.records.items():
        atomic_write(folder.output_dir / "records" / f"{name}.safetensors", content)
    for line in study.lines:
        folder.append(line)


def _write_lost(folder: PredictionFolder, missing: Sequence[Mapping[str, Any]], described: Mapping[str, Any]) -> None:
    """Record the questions of studies that ended every process that worked on them."""
    error = ArchiveWorkerError(
        f"the process that worked on the study ended in each of {ROUNDS * ATTEMPTS} attempts: perhaps memory ran out, "
        "or the file ends its reader. The messages of Ray above tell more"
    )
    for item in missing:
        logger.warning("question %s failed: %s: %s", item["id"], type(error).__name__, error)
        folder.append(result_line(item, described, error=(type(error).__name__, str(error))))
