# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Answers and what was kept, written as they come."""

from __future__ import annotations

import json
import logging
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from monai_medpruner.errors import OutputFolderError
from monai_medpruner.handlers.volume_record_file import STAGES, package_versions, save_volume_record
from monai_medpruner.memory import peak_memory

__all__ = ["AnswerWriter"]


logger = logging.getLogger(__name__)


class AnswerWriter:
    """Writes ``answers.jsonl``, a line per volume and question, and ``records/<id>.safetensors``, a file per volume.

    Every line is on disk before the next volume is read, so that a run that breaks off loses nothing. The answers of an
    earlier run into the same folder are kept under a name that holds their time.

    A line holds: ``id`` (hash of the volume), ``image`` (as given), ``question``, ``answer``, ``slices`` {``total``,
    ``kept``, ``indices`` counted from 0}, ``tokens`` {``unpruned``, of all slices; ``kept``; ``per_slice``, of the kept
    slices}, ``seconds`` per stage (the first question about a volume bears the stages that all share),
    ``peak_memory_mb`` (on the GPU since the volume began; on a CPU the process's so far), ``settings``, ``versions``,
    and ``notes``, what was seen in the volume and how it was handled.

    The evaluator's network is a :class:`~monai_medpruner.networks.VolumeQA`; its batches hold MetaTensors under
    "image", lists of texts under "question" and stage times under "seconds", and stay whole (``decollate=False``).

    Args:
        output_dir: made where it is missing.
        settings: what goes into each line beside the network's own settings.

    Raises:
        OutputFolderError: the folder cannot be written.
    """

    def __init__(self, output_dir: str | Path, settings: dict[str, Any] | None = None) -> None:
        self.output_dir = Path(output_dir)
        self.settings = dict(settings or {})
        self.versions = package_versions()

    @property
    def answers_file(self) -> Path:
        """The file with the answers."""
        return self.output_dir / "answers.jsonl"

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.ITERATION_STARTED, self.begin_volume)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)

    def begin(self, engine: Engine) -> None:
        """Make the folder and put earlier answers aside."""
        try:
            (self.output_dir / "records").mkdir(parents=True, exist_ok=True)
            if self.answers_file.exists():
                self.answers_file.rename(self._name_for_earlier_answers())
            self.answers_file.touch()
        except OSError as error:
            raise OutputFolderError(f"cannot write to the output folder {self.output_dir}: {error.strerror}") from error

    def _name_for_earlier_answers(self) -> Path:
        """A name that holds the time of the earlier answers and is not taken."""
        made = time.strftime("%Y%m%d-%H%M%S", time.localtime(self.answers_file.stat().st_mtime))
        paths = (self.output_dir / f"answers-{made}-{number}.jsonl" for number in count(1))
        return next(path for path in paths if not path.exists())

    def begin_volume(self, engine: Engine) -> None:
        """Let the GPU's peak memory count from here."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def write(self, engine: Any) -> None:
        """Write the answers about the volumes of a batch."""
        batch, answers = engine.state.batch, engine.state.output[CommonKeys.PRED]
        settings = {**self.settings, **engine.network.settings}
        for index, record in enumerate(engine.network.records):
            meta = batch[CommonKeys.IMAGE][index].meta
            questions = batch["question"][index]
            save_volume_record(self.output_dir / "records", meta, record, settings)
            shared, peak = batch["seconds"][index], peak_memory()
            for number, (question, answer) in enumerate(zip(questions, answers[index], strict=True)):
                spent = {**({} if number else shared), **record.seconds[number]}
                self._append(
                    {
                        "id": meta["volume_id"],
                        "image": str(meta["filename_or_obj"]),
                        "question": question,
                        "answer": answer,
                        "slices": {
                            "total": record.total_slices,
                            "kept": len(record.slice_indices),
                            "indices": record.slice_indices,
                        },
                        "tokens": {
                            "unpruned": record.unpruned_tokens,
                            "kept": sum(record.kept_tokens),
                            "per_slice": record.kept_tokens,
                        },
                        "seconds": {stage: round(spent.get(stage, 0.0), 6) for stage in STAGES},
                        "peak_memory_mb": None if peak is None else round(peak / 1e6, 1),
                        "settings": settings,
                        "versions": self.versions,
                        "notes": list(meta.get("notes", ())),
                    }
                )
        logger.info(f"{len(engine.network.records)} volume(s) answered in {self.answers_file}")

    def _append(self, line: dict[str, Any]) -> None:
        with self.answers_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
