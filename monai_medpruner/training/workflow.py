# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Parts shared by both training stages: network, handlers and the final checkpoint."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from ignite.handlers import ProgressBar
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader, CheckpointSaver, LrScheduleHandler
from torch import nn

from monai_medpruner.networks import Checkpoint
from monai_medpruner.networks.checkpoint_hashes import write_checksums
from monai_medpruner.testing import save_parts
from monai_medpruner.training.small_models import SmallShape, save_small_checkpoint
from monai_medpruner.training.step_batches import StepBatches

__all__ = ["save_trained", "training_handlers", "untrained_network"]

_CHECKPOINT = re.compile(r"checkpoint_epoch=(\d+)\.pt")


def untrained_network(
    model_type: str,
    folder: str,
    seed: int = 0,
    device: torch.device | str | None = None,
    shape: SmallShape | None = None,
) -> Checkpoint:
    """Return the checkpoint of a small model with random weights.

    Args:
        model_type: see :func:`~.small_models.save_small_checkpoint`.
        folder: folder for the untrained checkpoint.
        seed: seed of the weights.
        device: device for training; the model is in float32.
        shape: see :func:`~.small_models.save_small_checkpoint`.
    """
    path = save_small_checkpoint(model_type, folder, seed, shape)
    return Checkpoint(str(path), device=device, dtype=torch.float32)


def training_handlers(
    stage: str,
    folder: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    batches: StepBatches,
) -> list[Any]:
    """Return the handlers of one stage: learning rate schedule, progress, and checkpoints.

    A checkpoint is saved after every epoch, and an interrupted stage resumes from the last one.

    Args:
        stage: name of the stage and of its checkpoint folder.
        folder: folder of the run.
        network: network to save and restore.
        optimizer: optimizer to save and restore.
        scheduler: learning rate schedule, updated at every step.
        batches: dataset that follows the epochs.
    """
    place = Path(folder) / stage
    stored = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
    handlers: list[Any] = [
        batches,
        _GradientClip(network),
        LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
        _Progress(stage),
    ]
    saved = sorted(place.glob("checkpoint_epoch=*.pt"), key=lambda path: int(_CHECKPOINT.fullmatch(path.name)[1]))  # type: ignore[index]
    return [*handlers, _TrainerCheckpoints(place, stored, saved[-1] if saved else None)]


class _Progress:
    """Progress bar with steps and loss."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def attach(self, engine: Engine) -> None:
        bar = ProgressBar(desc=self.stage)
        bar.attach(engine, output_transform=lambda output: {"loss": output["loss"].item()})


class _GradientClip:
    """Clips the gradient norm at 1 between backward pass and optimizer step; without it, training diverged."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _clip(self, _: Engine) -> None:
        torch.nn.utils.clip_grad_norm_([one for one in self.network.parameters() if one.requires_grad], 1.0)


class _TrainerCheckpoints:
    """Saves and restores checkpoints with the state of the trainer, which is only known when attached."""

    def __init__(self, place: Path, stored: dict[str, Any], latest: Path | None) -> None:
        self.place, self.stored, self.latest = place, stored, latest

    def attach(self, engine: Engine) -> None:
        stored = {**self.stored, "trainer": engine}
        if self.latest is not None:
            CheckpointLoader(str(self.latest), stored, map_location={"cuda:0": "cpu"}).attach(engine)
        CheckpointSaver(str(self.place), stored, save_interval=1, n_saved=1).attach(engine)


def save_trained(network: Checkpoint, folder: str) -> None:
    """Save the trained model as a float16 checkpoint, with tokenizer and image processor.

    Args:
        network: network with the trained model; its own weights stay in float32.
        folder: folder of the checkpoint.
    """
    save_parts(folder, deepcopy(network.model).half(), network.tokenizer, network.image_processor)
    write_checksums(Path(folder))
