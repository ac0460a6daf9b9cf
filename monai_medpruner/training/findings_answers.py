# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Answers about volumes with findings: the language model learns from all and from some tokens of a frozen encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from monai_medpruner.data.phantom import FINDINGS_QUESTIONS
from monai_medpruner.engines.conversation import Conversation, conversation_text
from monai_medpruner.metrics import find_protocol
from monai_medpruner.networks import Checkpoint
from monai_medpruner.networks.pruned_slices import PrunedSlices
from monai_medpruner.results import SliceRecord
from monai_medpruner.training.answer_training import PHANTOM_PROMPT, AnswerNetwork
from monai_medpruner.training.findings_volumes import (
    REPORT_QUESTION,
    FindingsVolume,
)
from monai_medpruner.training.step_batches import StepBatches
from monai_medpruner.training.vision_warm_up import encode_slices

__all__ = [
    "EncodedFindings",
    "FindingsAnswerBatches",
    "encode_findings",
    "exact_answers",
    "kept_slices",
    "oracle_tokens",
    "prompt_text",
    "questions_right",
    "random_tokens",
]

_LETTERS = "ABCD"


@dataclass
class EncodedFindings:
    """Output of the encoder for a volume.

    Args:
        rows: float16 ``(D, N, C)`` each: the tokens, then the features of each DeepStack layer.
        volume: the ground truth.
    """

    rows: list[torch.Tensor]
    volume: FindingsVolume

    @property
    def grid(self) -> tuple[int, int]:
        """Numbers of token rows and columns per slice."""
        side = round(self.rows[0].shape[1] ** 0.5)
        return side, side


@torch.no_grad()
def encode_findings(network: Checkpoint, volumes: Sequence[FindingsVolume]) -> list[EncodedFindings]:
    """Encode volumes once, since the encoder is frozen from here on.

    Args:
        network: model with the trained encoder.
        volumes: volumes that the encoder was not trained on, so that its tokens are as uncertain as at inference.
    """
    network.model.eval()
    return [
        EncodedFindings([part.half() for part in encode_slices(network, torch.from_numpy(volume.slices))], volume)
        for volume in tqdm(volumes, desc="encoding volumes")
    ]


def random_tokens(generator: np.random.Generator, shown: np.ndarray, share: float) -> np.ndarray:
    """Return a mask ``(D, N)`` of a share of a volume's tokens, chosen at random.

    Args:
        generator: random generator.
        shown: bool ``(D, N)``, tokens that show a finding; only its shape counts.
        share: in (0, 1].
    """
    keep = np.zeros(shown.size, dtype=bool)
    keep[generator.permutation(shown.size)[: max(round(share * shown.size), 1)]] = True
    return keep.reshape(shown.shape)


def oracle_tokens(generator: np.random.Generator, areas: np.ndarray, share: float) -> np.ndarray:
    """Return a mask ``(D, N)`` of the tokens that show findings, filled up to a share of a volume's tokens.

    Each finding's token with the largest part of it comes first, then all other tokens of findings by the area they
    show, then the tokens beside them in the slice, for contact with the skull, then random ones.

    Args:
        generator: random generator of the tokens that fill up.
        areas: ``(D, F, N)``, share of each token's square that each finding covers.
        share: in (0, 1].
    """
    depth, _, number = areas.shape
    side = round(number**0.5)
    shown = areas.sum(1)
    priority = shown / max(float(shown.max()), 1e-9) * (shown > 0) + 2.0 * (shown > 0)
    for finding in areas.transpose(1, 0, 2):
        priority.flat[finding.argmax()] += 2
    padded = np.pad((shown > 0).reshape(depth, side, side), ((0, 0), (1, 1), (1, 1)))
    ring = np.zeros((depth, side, side), dtype=bool)
    for row in range(3):
        for column in range(3):
            ring |= padded[:, row : row + side, column : column + side]
    priority = priority + ring.reshape(depth, number)
    order = np.argsort(-(priority + 1e-6 * generator.uniform(size=priority.shape)).ravel(), kind="stable")
    keep = np.zeros(priority.size, dtype=bool)
    keep[order[: max(round(share * priority.size), 1)]] = True
    return keep.reshape(depth, number)


def kept_slices(encoded: EncodedFindings, keep: np.ndarray) -> tuple[PrunedSlices, list[int]]:
    """Return the tokens of a mask ``(D, N)``, and the slices that have any; the others do not reach the prompt."""
    indices = np.flatnonzero(keep.any(1)).tolist()
    pruned = PrunedSlices([], [[] for _ in encoded.rows[1:]], [])
    for index in indices:
        mask = torch.from_numpy(keep[index])
        none, merged = torch.zeros_like(mask), torch.where(mask, torch.arange(len(mask)), -1)
        pruned.records.append(SliceRecord(encoded.grid, mask, none, merged))
        for target, rows in zip((pruned.tokens, *pruned.deepstack_features), encoded.rows, strict=True):
            target.append(rows[index][mask].float())
    return pruned, indices


class FindingsAnswerBatches(StepBatches):
    """Questions about volumes, some with all tokens, most with a random share of them.

    No pruner is involved. Most subsets contain the tokens of the findings, so that the answer can be seen; the others
    are random alone, so that the model also knows prompts in which it cannot. The largest share grows over the epochs,
    because an untrained language model finds a few tokens among fifty, but not among a thousand.

    Args:
        network: builds the prompts.
        volumes: encoded volumes.
        batch_size: number of thinned volumes per batch.
        questions: number of questions per volume, beside the report.
        full_batch_size: number of volumes in a batch with all tokens; smaller, because they cost as much as ten others.
        full_fraction: fraction of batches with all tokens, from the middle of the growth on.
        min_share: smallest share of the tokens in the other batches.
        first_share: largest share in the first epoch.
        growth_epochs: number of epochs over which the largest share grows to 1.
        random_fraction: fraction of thinned volumes without the tokens of the findings, beside those met by chance.
        closed_fraction: fraction of questions with their choices.
        steps: see :class:`~.step_batches.StepBatches`.
        seed: see :class:`~.step_batches.StepBatches`.
    """

    def __init__(
        self,
        network: Checkpoint,
        volumes: Sequence[EncodedFindings],
        batch_size: int,
        questions: int,
        full_batch_size: int,
        full_fraction: float,
        min_share: float,
        first_share: float,
        growth_epochs: int,
        random_fraction: float,
        closed_fraction: float,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__(steps, seed)
        self.network, self.volumes = network, volumes
        self.batch_size, self.questions = batch_size, questions
        self.full_batch_size, self.full_fraction = full_batch_size, full_fraction
        self.min_share, self.first_share, self.growth_epochs = min_share, first_share, growth_epochs
        self.random_fraction, self.closed_fraction = random_fraction, closed_fraction
        self.protocol = find_protocol("meduni-vqa")

    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """Return ``encoded`` slices of some volumes, the ``texts`` of the prompts by volume, and their ``answers``."""
        grown = min((self.epoch - 1) / max(self.growth_epochs, 1), 1)
        full = grown >= 0.5 and generator.uniform() < self.full_fraction
        largest = self.first_share ** (1 - grown)
        parts, texts, answers = [], [], []
        for _ in range(self.full_batch_size if full else self.batch_size):
            encoded = self.volumes[int(generator.integers(len(self.volumes)))]
            share = 1.0 if full else float(np.exp(generator.uniform(np.log(self.min_share), np.log(largest))))
            keep = random_tokens(generator, encoded.volume.shown, share)
            if generator.uniform() >= self.random_fraction:
                keep |= encoded.volume.shown
            pruned, indices = kept_slices(encoded, keep)
            parts.append(pruned)
            own = encoded.volume.answers
            kinds = generator.choice(list(own), self.questions, replace=len(own) < self.questions).tolist()
            asked = [(self._question(generator, kind), own[kind]) for kind in kinds]
            for question, answer in [(REPORT_QUESTION, encoded.volume.report), *asked]:
                texts.append(prompt_text(self.network, question, encoded.grid, indices))
                answers.append(answer)
        return {
            "encoded": PrunedSlices.joined(parts),
            "texts": texts,
            "answers": answers,
            "questions": self.questions + 1,
        }

    def _question(self, generator: np.random.Generator, kind: str) -> str:
        """Return a question, sometimes with its choices in random order."""
        question, choices, _ = FINDINGS_QUESTIONS[kind]
        if generator.uniform() >= self.closed_fraction:
            return question
        shuffled = [choices[index] for index in generator.permutation(len(choices)).tolist()]
        return self.protocol.prompt(question, dict(zip(_LETTERS, shuffled, strict=False)))


def prompt_text(network: Checkpoint, question: str, grid: tuple[int, int], indices: Sequence[int]) -> str:
    """Return the prompt of a question about some slices."""
    conversation = Conversation.about(PHANTOM_PROMPT, question)
    return conversation_text(conversation, network.tokenizer, network.family, [grid] * len(indices), indices)


@torch.no_grad()
def exact_answers(answering: AnswerNetwork, encoded: EncodedFindings, keep: np.ndarray) -> dict[str, bool]:
    """Return for each kind of question whether greedy decoding gives exactly the correct answer.

    With the correct answer as input, every token of it is the most probable one: then greedy decoding gives it.

    Args:
        answering: the trained model.
        encoded: a volume.
        keep: bool ``(D, N)``, the tokens that reach the language model.
    """
    pruned, _ = kept_slices(encoded, keep)
    return questions_right(answering, pruned, encoded.volume.answers)


@torch.no_grad()
def questions_right(answering: AnswerNetwork, pruned: PrunedSlices, answers: Mapping[str, str]) -> dict[str, bool]:
    """Return for each kind of question whether greedy decoding gives exactly the correct answer.

    Found as in :func:`exact_answers`, from tokens that were already selected.

    Args:
        answering: the trained model.
        pruned: the slices of a volume that reach the language model.
        answers: correct answers by kind of question.
    """
    kinds, network = list(answers), answering.network
    indices = list(range(len(pruned.tokens)))
    batch = {
        "encoded": pruned,
        "texts": [prompt_text(network, FINDINGS_QUESTIONS[kind][0], pruned.grids[0], indices) for kind in kinds],
        "answers": [answers[kind] for kind in kinds],
        "questions": len(kinds),
    }
    logits, labels = answering(batch)
    right = ((logits.argmax(-1) == labels) | (labels < 0)).all(1).tolist()
    return dict(zip(kinds, right, strict=True))
