# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A handler that writes answers and study records."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from monai_medpruner.errors import OutputFolderError
from monai_medpruner.memory import peak_memory
from monai_medpruner.results import StudyAnswers, append_line, result_line
from monai_medpruner.terminal_text import package_logger

__all__ = ["AnswerWriter"]


logger = package_logger(__name__)


class AnswerWriter:
    """Writes ``answers.jsonl``, a line per volume and question, and a record per volume in ``records/``.

    Every line is on disk before the next volume is processed, so that an interrupted run keeps its answers. The answers
    of an earlier run in the same folder are renamed to include their time. Lines follow
    :data:`~monai_medpruner.results.LINE_SCHEMA`. Read records with
    :meth:`StudyRecord.load <monai_medpruner.results.StudyRecord.load>`.

    A volume that failed (:class:`~monai_medpruner.evaluation.VolumeEvaluator`) has a line per question with the error.

    The evaluator's network must be a :class:`~monai_medpruner.engines.VolumeQA`. Its batches have MetaTensors under
    "image" and lists of texts under "question", and must not be decollated (``decollate=False``).

    Args:
        output_dir: output folder; created if it does not exist.

    Raises:
        OutputFolderError: the folder cannot be written.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = Path(output_dir)

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
        """Create the folder and rename the answers of an earlier run."""
        try:
            (self.output_dir / "records").mkdir(parents=True, exist_ok=True)
            if self.answers_file.exists():
                self.answers_file.rename(self._name_for_earlier_answers())
            self.answers_file.touch()  # fails now where the folder cannot be written, and not after the first volume
            self.answers_file.unlink()
        except OSError as error:
            raise OutputFolderError(f"cannot write to the output folder {self.output_dir}: {error.strerror}") from error

    def _name_for_earlier_answers(self) -> Path:
        """Return an unused name with the time of the earlier answers."""
        made = time.strftime("%Y%m%d-%H%M%S", time.localtime(self.answers_file.stat().st_mtime))
        paths = (self.output_dir / f"answers-{made}-{number}.jsonl" for number in count(1))
        return next(path for path in paths if not path.exists())

    def begin_volume(self, engine: Engine) -> None:
        """Reset the peak memory of the GPU."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def write(self, engine: Any) -> None:
        """Write the answers about the volumes of a batch, or its error."""
        batch = engine.state.batch
        if (failed := engine.state.output.get("failed")) is not None:
            self._write_failed(engine, failed)
            return
        studies: list[StudyAnswers] = engine.state.output[CommonKeys.PRED]
        network = {name: value for name, value in engine.network.describe().items() if name in ("prompt", "engine")}
        identities = batch.get("question_id", [None] * len(studies))
        with self.answers_file.open("a", encoding="utf-8") as file:
            for study, questions, names in zip(studies, batch["question"], identities, strict=True):
                peak = peak_memory()
                asked = zip(questions, study.answers, study.question_records, strict=True)
                for number, (question, answer, record) in enumerate(asked):
                    record.save(self.output_dir / "records" / f"{record.name}.safetensors")
                    item = _item(names, number, record.volume_id[:12], record.image, question)
                    line = result_line(
                        item,
                        {**record.settings, **network},
                        record=record,
                        answer=answer,
                        first=number == 0,
                        peak_memory=peak,
                    )
                    append_line(file, line)
        logger.info(f"{len(studies)} volume(s) answered in {self.answers_file}")

    def _write_failed(self, engine: Any, failed: Any) -> None:
        """Write the error of a volume, once per question."""
        batch = engine.state.batch
        names = batch.get("question_id", [None])[0]
        with self.answers_file.open("a", encoding="utf-8") as file:
            for number, question in enumerate(batch["question"][0]):
                item = _item(names, number, f"volume-{engine.state.iteration}", failed.image, question)
                append_line(file, result_line(item, engine.network.describe(), error=failed.error))


def _item(names: list[str | None] | None, number: int, volume: str, image: str, question: str) -> dict[str, Any]:
    """Return a question as a result line takes it, under its own id or one made of the volume's."""
    given = names[number] if names else None
    return {"id": given or f"{volume}-{number}", "image": image, "question": question, "prompt": question}
