# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Training of the models of ``findings.py``: slices and phrases of their captions, then answers about volumes.

No stage tells the encoder a token's finding. An interrupted run resumes at its last epoch; the learning curves of all
stages stand in ``curves.jsonl`` of the family's folder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import nn
from torch.utils.data import DataLoader

from monai_medpruner.data.phantom import FindingsSettings
from monai_medpruner.networks import Checkpoint
from monai_medpruner.training import (
    FINDINGS_SHAPE,
    IMAGE_SIZE,
    PHRASE_PARTS,
    TOKEN_PIXELS,
    AnswerLoss,
    AnswerNetwork,
    FindingsAnswerBatches,
    MuonAdamW,
    PhraseBatches,
    PhraseContrast,
    PhraseLoss,
    StepBatches,
    encode_findings,
    exact_answers,
    findings_pool,
    oracle_tokens,
    prepare_answer_batch,
    prepare_phrase_batch,
    random_tokens,
    square_contrast,
    training_handlers,
    untrained_network,
)

TRAINING_SEED, VALIDATION_SEED = 3000, 3002
SIDE = IMAGE_SIZE // TOKEN_PIXELS
SHARE = 0.05


@dataclass(frozen=True)
class Schedule:
    """Numbers of phantoms, epochs and slices of a training run.

    A step takes 0.4 to 0.8 seconds of one processor core.
    """

    steps: int = 25
    volumes: int = 1200
    validation_volumes: int = 40
    phrases_epochs: int = 28
    answers_epochs: int = 50
    slices: int = 32
    asked_volumes: int = 8
    answers_pool: int = 800
    learning_rate: float = 1.5e-3
    muon_learning_rate: float = 0.02


@dataclass(frozen=True)
class Stage:
    """A stage of training: what is trained, on what, and what is measured after every so many epochs."""

    name: str
    network: nn.Module
    batches: StepBatches
    loss: nn.Module
    prepare: Callable[..., Any]
    epochs: int
    measure: Callable[[], dict[str, float]]
    measure_every: int = 1


def train(family: str, work: Path, schedule: Schedule) -> tuple[Checkpoint, AnswerNetwork]:
    """Train a model, or resume, or load what is trained.

    Returns:
        the trained model, and the network that answers with it.
    """
    folder = work / family
    network = untrained_network(family, str(folder / "untrained"), 0, "cpu", FINDINGS_SHAPE)
    run_stage(lambda: _phrases(network, work, schedule), "phrases", folder, network, schedule)
    run_stage(lambda: _answers(network, work, schedule), "answers", folder, network, schedule)
    return network, AnswerNetwork(network).eval()


def run_stage(make: Callable[[], Stage], name: str, folder: Path, network: Checkpoint, schedule: Schedule) -> None:
    """Run a stage, or load its weights if it was completed."""
    done = folder / f"{name}.pt"
    if done.is_file():
        network.model.load_state_dict(torch.load(done, weights_only=True))
        return
    stage = make()
    named = [(name, one) for name, one in stage.network.named_parameters() if one.requires_grad]
    rates = [schedule.muon_learning_rate, schedule.learning_rate]
    optimizer = MuonAdamW(named, *rates, float32=True)
    total = stage.epochs * schedule.steps + 1
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=total, pct_start=0.1, cycle_momentum=False
    )
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=stage.epochs,
        train_data_loader=DataLoader(stage.batches, batch_size=None),
        network=stage.network,
        optimizer=optimizer,
        loss_function=stage.loss,
        prepare_batch=stage.prepare,
        decollate=False,
        train_handlers=[
            *training_handlers(name, str(folder), stage.network, optimizer, scheduler, stage.batches),
            Curve(folder / "curves.jsonl", stage),
        ],
    )
    trainer.run()
    torch.save(network.model.state_dict(), done.with_suffix(".part"))
    done.with_suffix(".part").replace(done)


class Curve:
    """Appends the mean loss of each epoch, and what is measured after some, to a file."""

    def __init__(self, file: Path, stage: Stage) -> None:
        self.file, self.stage = file, stage
        self.losses: list[float] = []
        self.start = perf_counter()

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _collect(self, engine: Engine) -> None:
        self.losses.append(engine.state.output["loss"].item())

    def _write(self, engine: Engine) -> None:
        self.stage.network.eval()
        line = {"stage": self.stage.name, "epoch": engine.state.epoch, "loss": round(float(np.mean(self.losses)), 4)}
        line |= {"seconds": round(perf_counter() - self.start, 1)}
        if engine.state.epoch % self.stage.measure_every == 0 or engine.state.epoch == self.stage.epochs:
            line |= {name: round(value, 4) for name, value in self.stage.measure().items()}
        self.stage.network.train()
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
        self.losses, self.start = [], perf_counter()


def _pool(work: Path, seed: int, count: int) -> list[Any]:
    return findings_pool(work / "phantoms", seed, count, FindingsSettings(), SIDE)


def _phrases(network: Checkpoint, work: Path, schedule: Schedule) -> Stage:
    volumes = _pool(work, TRAINING_SEED, schedule.volumes)
    held = _pool(work, VALIDATION_SEED, schedule.validation_volumes)
    epochs = schedule.phrases_epochs
    batches = PhraseBatches(volumes, schedule.slices, 24, 0.9, epochs // 2, schedule.steps, 1)
    contrast = PhraseContrast(network)
    batch = PhraseBatches(held, 160, 24, 0.75, 0, 1, 0)[0]
    names = [*PHRASE_PARTS, "other captions"]

    @torch.no_grad()
    def measure() -> dict[str, float]:
        logits, contrasts = contrast(batch)
        error = (contrasts - square_contrast(batch["image"])).square().mean().item()
        logits, changed, true = logits.numpy(), batch["changed"].numpy(), batch["true"].numpy() > 0
        finding = np.arange(changed.shape[1]) < changed.shape[1] // 2
        areas = {
            f"auc, {name}": area_under_curve(logits[true & (finding == own)], logits[~true & (changed == part)])
            for part, name in enumerate(names)
            for own in [" spot" not in name and name != "brightness"]
        }
        return {"right": float(((logits > 0) == true)[:, finding].mean()), "squares": error, **areas}

    return Stage("phrases", contrast, batches, PhraseLoss(), prepare_phrase_batch, epochs, measure, measure_every=4)


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return how often a positive score is above a negative one; ties count half."""
    below = np.searchsorted(np.sort(negative), positive, "left") + np.searchsorted(np.sort(negative), positive, "right")
    return float(below.mean() / 2 / len(negative))


def _answers(network: Checkpoint, work: Path, schedule: Schedule) -> Stage:
    volumes = encode_findings(network, _pool(work, TRAINING_SEED, schedule.volumes)[: schedule.answers_pool])
    held = encode_findings(network, _pool(work, VALIDATION_SEED, schedule.validation_volumes))
    batches = FindingsAnswerBatches(
        network,
        volumes,
        batch_size=schedule.asked_volumes,
        questions=6,
        full_batch_size=max(schedule.asked_volumes // 4, 1),
        full_fraction=0.3,
        min_share=0.03,
        first_share=0.05,
        growth_epochs=schedule.answers_epochs // 2,
        random_fraction=0.1,
        closed_fraction=0.1,
        steps=schedule.steps,
        seed=2,
    )
    answering = AnswerNetwork(network)

    def measure() -> dict[str, float]:
        rights: dict[str, list[bool]] = {"unpruned": [], "oracle": [], "random": []}
        for number, encoded in enumerate(held):
            generator = np.random.default_rng(number)
            shown = encoded.volume.shown
            masks = {"unpruned": np.ones_like(shown), "random": random_tokens(generator, shown, SHARE)}
            masks["oracle"] = oracle_tokens(generator, encoded.volume.areas, SHARE)
            for name, keep in masks.items():
                rights[name] += exact_answers(answering, encoded, keep).values()
        return {name: float(np.mean(values)) for name, values in rights.items()}

    epochs = schedule.answers_epochs
    return Stage("answers", answering, batches, AnswerLoss(), prepare_answer_batch, epochs, measure, measure_every=5)


def curves(work: Path, family: str) -> list[dict[str, Any]]:
    """Return the learning curves of a family: a line per epoch, in the order in which they were trained."""
    return [json.loads(line) for line in (work / family / "curves.jsonl").read_text(encoding="utf-8").splitlines()]


def quiet() -> None:
    """Use one thread, and log errors alone."""
    logging.getLogger("monai_medpruner").setLevel(logging.ERROR)
    torch.set_num_threads(1)
