# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Second training stage: the language model learns to answer from all or some tokens of the trained encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from monai_medpruner.data.phantom import QUESTIONS
from monai_medpruner.engines import VolumePrompt
from monai_medpruner.engines.conversation import Conversation, conversation_text
from monai_medpruner.metrics import find_protocol
from monai_medpruner.networks import Checkpoint, PrunedVLM
from monai_medpruner.networks.pruned_slices import PrunedSlices
from monai_medpruner.results import SliceRecord
from monai_medpruner.training.step_batches import StepBatches
from monai_medpruner.training.training_phantom import NO_FINDING, TrainingPhantom
from monai_medpruner.training.vision_warm_up import VisionWarmUp, is_language

__all__ = [
    "PHANTOM_PROMPT",
    "AnswerBatches",
    "AnswerLoss",
    "AnswerNetwork",
    "EncodedPhantom",
    "encode_phantoms",
    "prepare_answer_batch",
]

#: prompt of the small models: slices and question without text between slices, which would be half of a pruned prompt;
#: the same as in ``configs/inference.json``
PHANTOM_PROMPT = VolumePrompt(before_slice="")
_IGNORED_LABEL = -100
_LETTERS = "ABCD"
# formats of a question, with their probabilities: the protocol's closed and open prompts, and the bare question
_FORMATS = ("closed", "open", "bare")
_FORMAT_SHARES = (0.6, 0.2, 0.2)


@dataclass
class EncodedPhantom:
    """Output of the trained encoder for a phantom.

    Args:
        rows: float16 ``(D, N, C)`` each: the tokens, then the features of each DeepStack layer.
        lesion_logits: float32 ``(D, N)``, log-odds of a lesion in each token, from the heads of the first stage.
        grid: numbers of token rows and columns per slice.
        phantom: the ground truth.
    """

    rows: list[torch.Tensor]
    lesion_logits: torch.Tensor
    grid: tuple[int, int]
    phantom: TrainingPhantom


@torch.no_grad()
def encode_phantoms(warmed_up: VisionWarmUp, phantoms: Sequence[TrainingPhantom]) -> list[EncodedPhantom]:
    """Encode phantoms once, since the encoder is frozen while the language model is trained.

    Args:
        warmed_up: the trained encoder and its heads.
        phantoms: phantoms that the encoder was not trained on, so that its tokens are as uncertain as at inference.
    """
    warmed_up.eval()
    encoded = []
    for phantom in tqdm(phantoms, desc="encoding phantoms"):
        rows = warmed_up.encode(torch.from_numpy(phantom.slices))
        lesion_logits = warmed_up.lesion_logits(rows).cpu()
        side = round(rows[0].shape[1] ** 0.5)
        encoded.append(EncodedPhantom([part.half().cpu() for part in rows], lesion_logits, (side, side), phantom))
    return encoded


class AnswerBatches(StepBatches):
    """Questions about phantoms, some with all slices and tokens, most with random subsets of both.

    Each batch samples its own subsets: the number of slices, the number of tokens per slice, and which ones. No pruner
    is involved. The tokens of the lesion are always included, so that the correct answer is visible. Some of the tokens
    with the highest lesion log-odds are included as well, so that the model sees false positives in healthy volumes.
    This is a curriculum: the first epochs use only a few slices, because an untrained language model finds the lesion
    tokens among twenty tokens, but not among two thousand. It retains this ability as the subsets grow.

    Args:
        network: builds the prompts.
        phantoms: encoded phantoms.
        batch_size: number of subsampled volumes per batch.
        questions: number of questions per volume.
        full_fraction: fraction of batches with all slices and tokens, once the max fraction of slices is halfway to 1.
        full_batch_size: number of volumes in such a batch; smaller, because a full volume costs as much as ten subsets.
        min_slices: min fraction of slices in the other batches.
        initial_max_slices: max fraction of slices in the first epochs.
        initial_epochs: number of these first epochs.
        growth_epochs: number of subsequent epochs over which the max fraction of slices grows to 1.
        min_tokens: min fraction of tokens per slice in the other batches, sampled uniformly up to ``max_tokens``.
        max_tokens: max fraction of tokens per slice in the other batches.
        max_hard_negatives: max number of tokens of the selected slices that are included for their high lesion
            log-odds; sampled uniformly from 0.
        steps: see :class:`~.step_batches.StepBatches`.
        seed: see :class:`~.step_batches.StepBatches`.
    """

    def __init__(
        self,
        network: Checkpoint,
        phantoms: Sequence[EncodedPhantom],
        batch_size: int,
        questions: int,
        full_fraction: float,
        full_batch_size: int,
        min_slices: float,
        initial_max_slices: float,
        initial_epochs: int,
        growth_epochs: int,
        min_tokens: float,
        max_tokens: float,
        max_hard_negatives: int,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__(steps, seed)
        self.network = network
        self.phantoms = phantoms
        self.batch_size = batch_size
        self.questions = questions
        self.full_fraction, self.full_batch_size = full_fraction, full_batch_size
        self.min_slices, self.initial_max_slices = min_slices, initial_max_slices
        self.initial_epochs, self.growth_epochs = initial_epochs, growth_epochs
        self.min_tokens, self.max_tokens = min_tokens, max_tokens
        self.max_hard_negatives = max_hard_negatives
        self.protocol = find_protocol("meduni-vqa")

    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """Return ``encoded`` slices of some volumes, the ``texts`` of the prompts by volume, and their ``answers``."""
        slice_share = token_share = 1.0
        size = self.full_batch_size
        grown = min(max((self.epoch - self.initial_epochs) / self.growth_epochs, 0), 1)
        if generator.uniform() >= self.full_fraction or grown < 0.5:
            size = self.batch_size
            max_slices = self.initial_max_slices + grown * (1 - self.initial_max_slices)
            slice_share = generator.uniform(self.min_slices, max_slices)
            token_share = generator.uniform(self.min_tokens, self.max_tokens)
        encoded, texts, answers = PrunedSlices(), [], []
        for _ in range(size):
            phantom = self.phantoms[int(generator.integers(len(self.phantoms)))]
            indices = _draw_slices(generator, phantom.phantom, slice_share)
            self._append(generator, encoded, phantom, indices, token_share)
            grids = [phantom.grid] * len(indices)
            for kind in generator.choice(list(phantom.phantom.answers), self.questions).tolist():
                conversation = Conversation.about(PHANTOM_PROMPT, self._question(generator, kind))
                text = conversation_text(conversation, self.network.tokenizer, self.network.family, grids, indices)
                texts.append(text)
                answers.append(phantom.phantom.answers[kind])
        return {"encoded": encoded, "texts": texts, "answers": answers, "questions": self.questions}

    def _question(self, generator: np.random.Generator, kind: str) -> str:
        """Return a question in a random format, with its choices in random order."""
        question, choices = QUESTIONS[kind]
        prompt_format = _FORMATS[generator.choice(len(_FORMATS), p=_FORMAT_SHARES)]
        if prompt_format == "bare":
            return question
        order = generator.permutation(len(choices)).tolist()
        listed = dict(zip(_LETTERS, (choices[index] for index in order), strict=False))
        return self.protocol.prompt(question, listed if prompt_format == "closed" else None)

    def _append(
        self,
        generator: np.random.Generator,
        encoded: PrunedSlices,
        phantom: EncodedPhantom,
        indices: list[int],
        share: float,
    ) -> None:
        """Append some slices of a phantom with some of their tokens."""
        number = phantom.rows[0].shape[1]
        count = max(round(share * number), 1)
        if not encoded.deepstack_features:
            encoded.deepstack_features.extend([] for _ in phantom.rows[1:])
        hard_negatives = torch.zeros(len(indices), number, dtype=torch.bool)
        hard_count = int(generator.integers(self.max_hard_negatives + 1))
        hard_negatives.view(-1)[phantom.lesion_logits[indices].flatten().topk(hard_count).indices] = True
        for index, hard in zip(indices, hard_negatives, strict=True):
            keep = hard.clone()
            keep[torch.from_numpy(generator.permutation(number)[:count])] = True
            findings = phantom.phantom.findings[index]
            keep |= torch.from_numpy((findings >= 0) & (findings < NO_FINDING))
            record = SliceRecord.unpruned(phantom.grid)
            encoded.records.append(SliceRecord(phantom.grid, keep, torch.zeros_like(keep), record.merged_into))
            for target, rows in zip((encoded.tokens, *encoded.deepstack_features), phantom.rows, strict=True):
                target.append(rows[index][keep].float())


def _draw_slices(generator: np.random.Generator, phantom: TrainingPhantom, share: float) -> list[int]:
    """Return the indices of a fraction of the slices, including at least one slice with the lesion."""
    depth = len(phantom.slices)
    chosen = set(generator.permutation(depth)[: max(round(share * depth), 1)].tolist())
    seen = np.flatnonzero(phantom.slice_findings < NO_FINDING)
    if len(seen) and not chosen.intersection(seen.tolist()):
        chosen.add(int(seen[generator.integers(len(seen))]))
    return sorted(chosen)


def prepare_answer_batch(
    batch: Mapping[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
) -> tuple[Mapping[str, Any], list[str]]:
    """Return the batch and its answers for MONAI's trainer; the network moves tensors to its device."""
    return batch, batch["answers"]


class AnswerNetwork(nn.Module):
    """A pruned model that receives the correct answer after each prompt (teacher forcing).

    Args:
        network: its language model is trained in place; its encoder and projector are frozen.
    """

    def __init__(self, network: Checkpoint) -> None:
        super().__init__()
        self._network = [network]
        self.model = network.model
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad = is_language(name)

    @property
    def network(self) -> Checkpoint:
        """The network whose language model is trained."""
        return self._network[0]

    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return names and parameters of the language model."""
        return [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]

    def forward(self, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict the tokens of the answers.

        Args:
            batch: a batch of :class:`AnswerBatches`.

        Returns:
            Logits ``(B, L, vocabulary)`` at the tokens of questions and answers, and the next token ids ``(B, L)``,
            -100 outside of the answers.
        """
        tokenizer, vlm, each = self._network[0].tokenizer, PrunedVLM(self.model), batch["questions"]
        prompts = tokenizer(batch["texts"], add_special_tokens=False)["input_ids"]
        # the common prefix of the questions about a volume is run once: everything up to the last visual token
        ends = [len(prompt) - prompt[::-1].index(vlm.family.image_token_id) + 1 for prompt in prompts]
        volumes = [prompt[:end] for prompt, end in zip(prompts[::each], ends[::each], strict=True)]
        questions = [prompt[end:] for prompt, end in zip(prompts, ends, strict=True)]
        answers = [text + tokenizer.eos_token for text in batch["answers"]]
        answers = tokenizer(answers, add_special_tokens=False)["input_ids"]
        # prefixes are padded on the left and the rest on the right: padding in between would count in sliding windows
        inputs = self._padded(volumes, left=True)
        pruned = vlm.pruned_prompt(_on_device(batch["encoded"], self.model.device), **inputs)
        cache = self.model(**pruned, use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(each)
        asked = self._padded([[*one, *two] for one, two in zip(questions, answers, strict=True)])
        mask = asked["attention_mask"]
        logits = self.model(
            **{**asked, "attention_mask": torch.cat([pruned["attention_mask"].repeat_interleave(each, 0), mask], 1)},
            **vlm.family.token_types(asked["input_ids"]),
            position_ids=pruned["position_ids"][..., -1:].repeat_interleave(each, -2) + mask.cumsum(1),
            past_key_values=cache,
        ).logits
        labels = torch.full_like(mask, _IGNORED_LABEL)
        for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            labels[row, len(question) : len(question) + len(answer)] = torch.tensor(answer)
        return logits[:, :-1], labels[:, 1:]

    def _padded(self, rows: list[list[int]], left: bool = False) -> dict[str, torch.Tensor]:
        """Return padded token ids ``(B, L)`` and their attention mask."""
        side = "left" if left else "right"
        padded = self._network[0].tokenizer.pad({"input_ids": rows}, padding_side=side, return_tensors="pt")
        return {name: value.to(self.model.device) for name, value in padded.items()}


def _on_device(encoded: PrunedSlices, device: torch.device) -> PrunedSlices:
    deepstack_features = [[rows.to(device) for rows in layer] for layer in encoded.deepstack_features]
    return PrunedSlices(
        [rows.to(device) for rows in encoded.tokens], deepstack_features, encoded.records, encoded.seconds
    )


class AnswerLoss(nn.Module):
    """Cross-entropy over the tokens of the answers."""

    def forward(self, predicted: tuple[torch.Tensor, torch.Tensor], answers: Any = None) -> torch.Tensor:
        """Return the loss of the output of :class:`AnswerNetwork`, which already contains the labels."""
        logits, labels = predicted
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED_LABEL)
