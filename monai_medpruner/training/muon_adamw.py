# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""One optimizer that combines Muon for weight matrices with AdamW for all other parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from monai_medpruner.errors import SettingsError

__all__ = ["MuonAdamW"]


class MuonAdamW(Optimizer):
    """PyTorch's Muon for hidden weight matrices, and AdamW for embeddings, heads, norms and biases.

    This is the recommended use of Muon (K. Jordan, https://kellerjordan.github.io/posts/muon). In trials, the warm-up
    loss decreased in fewer steps than with AdamW alone. There are two parameter groups, Muon's first, for schedules
    with two learning rates.

    Args:
        named_parameters: names and parameters; parameters whose names contain "embed" or "head" use AdamW regardless
            of their shape.
        muon_learning_rate: learning rate of Muon.
        learning_rate: learning rate of AdamW.
        weight_decay: weight decay of both.

    Raises:
        SettingsError: PyTorch is older than 2.9 and has no Muon.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        muon_learning_rate: float,
        learning_rate: float,
        weight_decay: float = 0.01,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise SettingsError(f"training needs PyTorch 2.9 or newer for torch.optim.Muon; found {torch.__version__}")
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in named_parameters:
            inner = parameter.ndim == 2 and "embed" not in name and "head" not in name
            (matrices if inner else others).append(parameter)
        self._parts: tuple[Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=muon_learning_rate, weight_decay=weight_decay),
            AdamW(others, lr=learning_rate, weight_decay=weight_decay),
        )
        # share the group objects with both optimizers, so that learning rate schedules take effect in them
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run a step of both optimizers; see :meth:`torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both optimizers."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states of both optimizers."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]
