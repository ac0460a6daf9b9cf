# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Muon for the weight matrices, AdamW for all else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from monai_medpruner.errors import SettingsError

__all__ = ["MuonAdamW"]


class MuonAdamW(Optimizer):
    """PyTorch's Muon on the matrices inside of a network, its AdamW on embeddings, heads, norms and biases.

    So Muon is meant to be used (K. Jordan, https://kellerjordan.github.io/posts/muon). In trials the warm-up's loss
    fell in fewer steps than with AdamW alone. There are two parameter groups, the matrices first, for schedules with
    two rates.

    Args:
        named_parameters: names and parameters; those whose name holds "embed" or "head" are AdamW's, whatever their
            shape.
        muon_learning_rate: learning rate of Muon.
        rate: learning rate of AdamW.
        weight_decay: of both.

    Raises:
        SettingsError: this PyTorch has no Muon, which came with 2.9.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        muon_learning_rate: float,
        learning_rate: float,
        weight_decay: float = 0.01,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise SettingsError(
                f"training needs torch.optim.Muon, of PyTorch 2.9 or newer; this is {torch.__version__}"
            )
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in named_parameters:
            inner = parameter.ndim == 2 and "embed" not in name and "head" not in name
            (matrices if inner else others).append(parameter)
        self._parts: tuple[Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=muon_learning_rate, weight_decay=weight_decay),
            AdamW(others, lr=learning_rate, weight_decay=weight_decay),
        )
        # the groups of the parts themselves, so that a schedule that sets their rates reaches the parts
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step both; see :meth:`torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the states of both."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]
