# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Questions that are asked together, of which one may fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from monai_medpruner.engines import VolumeQA
from monai_medpruner.networks import EncodedStudy
from monai_medpruner.results import Answer

__all__ = ["ask_together"]


def ask_together(
    network: VolumeQA,
    asked: Sequence[tuple[EncodedStudy, str, int | None]],
    describe: Callable[[Exception], tuple[str, str]],
) -> Iterator[Answer | tuple[str, str]]:
    """Ask as many questions together as the engine answers best; where that fails, each half by itself.

    So the question at fault fails alone, after a number of calls that grows with the logarithm of the questions.

    Args:
        network: answers.
        asked: as in :meth:`VolumeQA.answer_each <monai_medpruner.engines.VolumeQA.answer_each>`.
        describe: class and message of an error; raises one that ends the run.

    Yields:
        For each question, in order, its answer, or class and message of its error.
    """
    size = network.engine.questions_at_once
    for start in range(0, len(asked), size):
        yield from _part(network, asked[start : start + size], describe)


def _part(
    network: VolumeQA,
    asked: Sequence[tuple[EncodedStudy, str, int | None]],
    describe: Callable[[Exception], tuple[str, str]],
) -> Iterator[Answer | tuple[str, str]]:
    try:
        answers = network.answer_each(asked)
    except Exception as error:
        described = describe(error)
    else:
        yield from answers
        return
    if len(asked) == 1:
        yield described
        return
    middle = len(asked) // 2
    yield from _part(network, asked[:middle], describe)
    yield from _part(network, asked[middle:], describe)
