# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Batches drawn anew in every epoch, the same ones whether a run was broken off or not."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from torch.utils.data import Dataset

__all__ = ["StepBatches"]


class StepBatches(Dataset):
    """Whole batches as the items of a dataset; a batch depends on seed, epoch and step alone.

    For a ``DataLoader`` with ``batch_size=None``. It is a handler as well: attached to the trainer, it learns the
    epoch, so that a resumed run draws what the uninterrupted one would have drawn.

    Args:
        steps: batches of an epoch.
        seed: of what is drawn.
    """

    def __init__(self, steps: int, seed: int) -> None:
        self.steps = steps
        self.seed = seed
        self.epoch = 1

    def attach(self, engine: Engine) -> None:
        """Follow the trainer's epochs."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._follow)

    def _follow(self, engine: Engine) -> None:
        self.epoch = engine.state.epoch

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        """The batch of a step of the current epoch."""
        if not 0 <= step < self.steps:
            raise IndexError(step)
        return self.draw(np.random.default_rng([self.seed, self.epoch, step]))

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """Draw a batch."""
