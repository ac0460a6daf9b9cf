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
from monai_medpruner.reasoning import without_reasoning
from monai_medpruner.results.study_record import StudyRecord

__all__ = ["Answer", "StudyAnswers"]


@dataclass(frozen=True)
class Answer:
    """The answer of a language model to one question.

    Args:
        text: the answer, without a model's reasoning.
        seconds: seconds of the stages "prefill" (including building the prompt) and "decode".
        prompt_tokens: number of tokens of the pruned prompt, including visual tokens.
        visual_tokens: number of visual tokens in the pruned prompt.
        new_tokens: number of generated tokens.
        reused_tokens: number of tokens at the beginning of the prompt that an earlier question about the study had run.
        truncated: whether the answer was cut off at its length limit.
        raw_text: all that the model wrote, if that is more than the answer: its reasoning; otherwise None.
        notes: what is unusual about the answer, such as that a limit of time ended it.
    """

    text: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    visual_tokens: int = 0
    new_tokens: int = 0
    reused_tokens: int = 0
    truncated: bool = False
    raw_text: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of_text(cls, written: str, **facts: Any) -> Answer:
        """Return the answer in what a model wrote.

        Args:
            written: the model's text, with its reasoning, if any.
            facts: other fields.
        """
        text = without_reasoning(written)
        return cls(text, raw_text=None if text == written.strip() else written, **facts)

    def __str__(self) -> str:
        return self.text

    def summary(self) -> dict[str, Any]:
        """Return the fields of the answer in a result line; see :data:`~monai_medpruner.results.LINE_SCHEMA`."""
        raw = {} if self.raw_text is None else {"raw_answer": self.raw_text}
        lengths = {"prompt_tokens": self.prompt_tokens, "new_tokens": self.new_tokens, "truncated": self.truncated}
        return {"answer": self.text, **raw, **lengths}

    def save(self, path: str | Path) -> Path:
        """Write the answer as JSON, atomically.

        Raises:
            OutputFolderError: the file cannot be written.
        """
        target = Path(path)
        atomic_write(target, (json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n").encode())
        return target

    @classmethod
    def load(cls, path: str | Path) -> Answer:
        """Read a file that :meth:`save` wrote.

        Raises:
            OutputFolderError: the file is missing or is not an answer.
        """
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(**{**fields, "notes": tuple(fields.get("notes", ()))})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise OutputFolderError(f"{path} cannot be read as an answer: {error}") from error


@dataclass(frozen=True, eq=False)
class StudyAnswers:
    """The answers about one study.

    Args:
        record: record of the study.
        answers: one answer per question, in the order of the questions.
        question_records: record for each question. All are ``record`` unless the pruner needs the question.
    """

    record: StudyRecord
    answers: tuple[Answer, ...]
    question_records: tuple[StudyRecord, ...]

    @property
    def texts(self) -> list[str]:
        """The texts of the answers."""
        return [answer.text for answer in self.answers]
