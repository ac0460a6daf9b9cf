# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Randomly sampled batches that are the same in interrupted and uninterrupted runs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from torch.utils.data import Dataset

__all__ = ["StepBatches"]


class StepBatches(Dataset):
    """A dataset whose items are whole batches; a batch depends only on seed, epoch and step.

    Use it in a ``DataLoader`` with ``batch_size=None``. It is also a handler: attached to the trainer, it follows the
    epoch, so a resumed run samples the same batches as an uninterrupted one.

    Args:
        steps: number of batches per epoch.
        seed: random seed of the batches.
    """

    def __init__(self, steps: int, seed: int) -> None:
        self.steps = steps
        self.seed = seed
        self.epoch = 1

    def attach(self, engine: Engine) -> None:
        """Follow the epochs of a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._follow)

    def _follow(self, engine: Engine) -> None:
        self.epoch = engine.state.epoch

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        """Return the batch of a step in the current epoch."""
        if not 0 <= step < self.steps:
            raise IndexError(step)
        return self.draw(np.random.default_rng([self.seed, self.epoch, step]))

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """Sample a batch."""
