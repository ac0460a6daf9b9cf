# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""An answer to one question, and the answers about one study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.errors import OutputFolderError
from monai_medpruner.results.study_record import StudyRecord

__all__ = ["Answer", "StudyAnswers"]


@dataclass(frozen=True)
class Answer:
    """What a language model answered to one question.

    Args:
        text: the answer.
        seconds: of the stages "prefill" (with writing the prompt) and "decode".
        prompt_tokens: tokens of the prompt that the language model read, visual ones included.
        visual_tokens: visual tokens among them.
        new_tokens: tokens that were generated.
        reused_tokens: tokens at the beginning of the prompt that an earlier question about the study had run.
    """

    text: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    visual_tokens: int = 0
    new_tokens: int = 0
    reused_tokens: int = 0

    def __str__(self) -> str:
        return self.text

    def summary(self) -> dict[str, Any]:
        """What a line of results says of the answer; see :data:`~monai_medpruner.results.LINE_SCHEMA`."""
        return {"answer": self.text, "prompt_tokens": self.prompt_tokens, "new_tokens": self.new_tokens}

    def save(self, path: str | Path) -> Path:
        """Write the answer as JSON, atomically.

        Raises:
            OSError: the file cannot be written.
        """
        target = Path(path)
        atomic_write(target, (json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n").encode())
        return target

    @classmethod
    def load(cls, path: str | Path) -> Answer:
        """Read an answer that :meth:`save` wrote.

        Raises:
            OutputFolderError: the file is missing or is not an answer.
        """
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise OutputFolderError(f"{path} cannot be read as an answer: {error}") from error


@dataclass(frozen=True, eq=False)
class StudyAnswers:
    """The answers about one study.

    Args:
        record: what was kept of the study.
        answers: one per question, in the order of the questions.
        question_records: what was kept for each question; the study's own record for each, unless the pruner needs the
            question.
    """

    record: StudyRecord
    answers: tuple[Answer, ...]
    question_records: tuple[StudyRecord, ...]

    @property
    def texts(self) -> list[str]:
        """The texts of the answers."""
        return [answer.text for answer in self.answers]
