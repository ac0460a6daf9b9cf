# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Second stage: the language model learns to answer from the tokens of the trained encoder, all of them or a few."""

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
from monai_medpruner.networks.encoding import PrunedSlices
from monai_medpruner.results import SliceRecord
from monai_medpruner.training.phantom_pool import NO_FINDING, TrainingPhantom
from monai_medpruner.training.step_batches import StepBatches
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

#: how the small models read a volume: slices and question, and no text between slices, which would be half of a pruned
#: prompt; the same as in ``configs/inference.json``
PHANTOM_PROMPT = VolumePrompt(before_slice="")
_IGNORED_LABEL = -100
_LETTERS = "ABCD"
# forms of a question: as a closed and an open one of the protocol, and alone
_FORMS = ("closed", "open", "alone")
_FORM_SHARES = (0.6, 0.2, 0.2)


@dataclass
class EncodedPhantom:
    """What the trained encoder says of a phantom.

    Args:
        rows: float16 ``(D, N, C)``: the tokens, then the side rows of each layer.
        suspicion: float32 ``(D, N)``: log-odds of a lesion in each token, by the heads of the first stage.
        grid: rows and columns of a slice's tokens.
        phantom: the truth.
    """

    rows: list[torch.Tensor]
    suspicion: torch.Tensor
    grid: tuple[int, int]
    phantom: TrainingPhantom


@torch.no_grad()
def encode_phantoms(warmed_up: VisionWarmUp, phantoms: Sequence[TrainingPhantom]) -> list[EncodedPhantom]:
    """Encode phantoms once; the encoder does not change while the language model learns.

    Args:
        warmed_up: the trained encoder and its heads.
        phantoms: other ones than the encoder learned from, so that its tokens are no surer than they will be.
    """
    warmed_up.eval()
    encoded = []
    for phantom in tqdm(phantoms, desc="phantoms encoded"):
        rows = warmed_up.encode(torch.from_numpy(phantom.slices))
        suspicion = warmed_up.suspicion(rows).cpu()
        side = round(rows[0].shape[1] ** 0.5)
        encoded.append(EncodedPhantom([part.half().cpu() for part in rows], suspicion, (side, side), phantom))
    return encoded


class AnswerBatches(StepBatches):
    """Questions about phantoms, some on all of the slices and tokens, most on a random part of both.

    A part is drawn anew for every batch: how many slices, how many tokens of each, and which. It is no pruner's choice;
    the tokens of the lesion are always among them, so that the right answer can be seen, and some of those that the
    encoder most takes for a lesion, so that healthy volumes show it what only looks like one. The first epochs show a
    few slices alone: among two thousand tokens a language model that knows nothing does not find those of the lesion,
    among twenty it does, and what it has found it keeps as the parts grow.

    Args:
        network: writes the prompts.
        phantoms: encoded.
        batch_size: parts of volumes in a batch.
        questions: about each of them.
        whole_share: of the batches that leave slices and tokens as they are, once parts have grown half way.
        whole_size: volumes of such a batch, fewer, for a whole volume costs as much as ten parts.
        least_slices: smallest share of the slices in the others.
        first_slices: largest share of the slices in the first epochs.
        short_epochs: how many these are.
        growing_epochs: over how many epochs after them the largest share grows to 1.
        least_tokens: smallest share of a slice's tokens in the others; drawn evenly up to ``most_tokens``.
        most_tokens: largest share of a slice's tokens in the others.
        most_suspects: of the tokens of the chosen slices, so many at most are kept since they look most like a lesion;
            drawn evenly from 0.
        steps: see :class:`~.step_batches.StepBatches`.
        seed: see :class:`~.step_batches.StepBatches`.
    """

    def __init__(
        self,
        network: Checkpoint,
        phantoms: Sequence[EncodedPhantom],
        batch_size: int,
        questions: int,
        whole_share: float,
        whole_size: int,
        least_slices: float,
        first_slices: float,
        short_epochs: int,
        growing_epochs: int,
        least_tokens: float,
        most_tokens: float,
        most_suspects: int,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__(steps, seed)
        self.network = network
        self.phantoms = phantoms
        self.batch_size = batch_size
        self.questions = questions
        self.whole_share, self.whole_size = whole_share, whole_size
        self.least_slices, self.first_slices = least_slices, first_slices
        self.short_epochs, self.growing_epochs = short_epochs, growing_epochs
        self.least_tokens, self.most_tokens = least_tokens, most_tokens
        self.most_suspects = most_suspects
        self.protocol = find_protocol("meduni-vqa")

    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """``encoded`` slices of some volumes; ``texts`` of the prompts, volume by volume, and ``answers`` to them."""
        slice_share = token_share = 1.0
        size = self.whole_size
        grown = min(max((self.epoch - self.short_epochs) / self.growing_epochs, 0), 1)
        if generator.uniform() >= self.whole_share or grown < 0.5:
            size = self.batch_size
            most = self.first_slices + grown * (1 - self.first_slices)
            slice_share = generator.uniform(self.least_slices, most)
            token_share = generator.uniform(self.least_tokens, self.most_tokens)
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
        """A question in one of its forms, its choices in any order."""
        question, choices = QUESTIONS[kind]
        form = _FORMS[generator.choice(len(_FORMS), p=_FORM_SHARES)]
        if form == "alone":
            return question
        order = generator.permutation(len(choices)).tolist()
        listed = dict(zip(_LETTERS, (choices[index] for index in order), strict=False))
        return self.protocol.prompt(question, listed if form == "closed" else None)

    def _append(
        self,
        generator: np.random.Generator,
        encoded: PrunedSlices,
        phantom: EncodedPhantom,
        indices: list[int],
        share: float,
    ) -> None:
        """Add some slices of a phantom with some of their tokens."""
        number = phantom.rows[0].shape[1]
        count = max(round(share * number), 1)
        if not encoded.deepstack_features:
            encoded.deepstack_features.extend([] for _ in phantom.rows[1:])
        suspects = torch.zeros(len(indices), number, dtype=torch.bool)
        most = phantom.suspicion[indices].flatten().topk(int(generator.integers(self.most_suspects + 1))).indices
        suspects.view(-1)[most] = True
        for index, suspected in zip(indices, suspects, strict=True):
            keep = suspected.clone()
            keep[torch.from_numpy(generator.permutation(number)[:count])] = True
            findings = phantom.phantom.findings[index]
            keep |= torch.from_numpy((findings >= 0) & (findings < NO_FINDING))
            record = SliceRecord.unpruned(phantom.grid)
            encoded.records.append(SliceRecord(phantom.grid, keep, torch.zeros_like(keep), record.merged_into))
            for target, rows in zip((encoded.tokens, *encoded.deepstack_features), phantom.rows, strict=True):
                target.append(rows[index][keep].float())


def _draw_slices(generator: np.random.Generator, phantom: TrainingPhantom, share: float) -> list[int]:
    """Indices of a share of the slices, one of the lesion's among them."""
    depth = len(phantom.slices)
    chosen = set(generator.permutation(depth)[: max(round(share * depth), 1)].tolist())
    seen = np.flatnonzero(phantom.slice_findings < NO_FINDING)
    if len(seen) and not chosen.intersection(seen.tolist()):
        chosen.add(int(seen[generator.integers(len(seen))]))
    return sorted(chosen)


def prepare_answer_batch(
    batch: Mapping[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
) -> tuple[Mapping[str, Any], list[str]]:
    """The batch and its answers, as MONAI's trainer asks for them; the network moves what it needs to its device."""
    return batch, batch["answers"]


class AnswerNetwork(nn.Module):
    """A pruned model as it is asked, with the right answer behind each prompt.

    Args:
        network: whose language model is trained in place; its encoder and projector are frozen.
    """

    def __init__(self, network: Checkpoint) -> None:
        super().__init__()
        self._network = [network]
        self.model = network.model
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad = is_language(name)

    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters of the language model."""
        return [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]

    def forward(self, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict the tokens of the answers.

        Args:
            batch: as :class:`AnswerBatches` draws it.

        Returns:
            Logits ``(B, L, vocabulary)`` of the questions' tokens and the answers', and the token ids that follow each
            ``(B, L)``, -100 but where the answer stands.
        """
        tokenizer, vlm, each = self._network[0].tokenizer, PrunedVLM(self.model), batch["questions"]
        prompts = tokenizer(batch["texts"], add_special_tokens=False)["input_ids"]
        # what the questions about a volume share is run once: all up to the text behind the last visual token
        ends = [len(prompt) - prompt[::-1].index(vlm.family.image_token_id) + 1 for prompt in prompts]
        volumes = [prompt[:end] for prompt, end in zip(prompts[::each], ends[::each], strict=True)]
        questions = [prompt[end:] for prompt, end in zip(prompts, ends, strict=True)]
        answers = [text + tokenizer.eos_token for text in batch["answers"]]
        answers = tokenizer(answers, add_special_tokens=False)["input_ids"]
        # padding lies outside: between the two parts it would count in sliding windows
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
        wanted = torch.full_like(mask, _IGNORED_LABEL)
        for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            wanted[row, len(question) : len(question) + len(answer)] = torch.tensor(answer)
        return logits[:, :-1], wanted[:, 1:]

    def _padded(self, rows: list[list[int]], left: bool = False) -> dict[str, torch.Tensor]:
        """Token ids ``(B, L)`` and their attention mask."""
        side = "left" if left else "right"
        padded = self._network[0].tokenizer.pad({"input_ids": rows}, padding_side=side, return_tensors="pt")
        return {name: value.to(self.model.device) for name, value in padded.items()}


def _on_device(encoded: PrunedSlices, device: torch.device) -> PrunedSlices:
    deepstack_features = [[rows.to(device) for rows in layer] for layer in encoded.deepstack_features]
    return PrunedSlices(
        [rows.to(device) for rows in encoded.tokens], deepstack_features, encoded.records, encoded.seconds
    )


class AnswerLoss(nn.Module):
    """Cross-entropy of the answers' tokens."""

    def forward(self, predicted: tuple[torch.Tensor, torch.Tensor], answers: Any = None) -> torch.Tensor:
        """Compare what :class:`AnswerNetwork` returns; the answers are in it already."""
        logits, labels = predicted
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED_LABEL)
