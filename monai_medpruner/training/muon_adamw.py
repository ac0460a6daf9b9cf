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

        float32: whether Muon orthogonalizes in float32. PyTorch's does so in bfloat16, which takes ten times as long on
            processors without arithmetic for it.

    Raises:
        SettingsError: PyTorch is older than 2.9 and has no Muon.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        muon_learning_rate: float,
        learning_rate: float,
        weight_decay: float = 0.01,
        float32: bool = False,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise SettingsError(f"training needs PyTorch 2.9 or newer for torch.optim.Muon; found {torch.__version__}")
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in named_parameters:
            inner = parameter.ndim == 2 and "embed" not in name and "head" not in name
            (matrices if inner else others).append(parameter)
        self._parts: tuple[Optimizer, ...] = (
            (_Float32Muon if float32 else torch.optim.Muon)(matrices, lr=muon_learning_rate, weight_decay=weight_decay),
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


class _Float32Muon(Optimizer):
    """PyTorch's Muon with its default settings, computed in float32."""

    _MOMENTUM, _STEPS, _COEFFICIENTS = 0.95, 5, (3.4445, -4.775, 2.0315)

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run a step; there is no closure, because :class:`MuonAdamW` calls it."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - self._MOMENTUM)
                update = self._orthogonal(parameter.grad.lerp(momentum, self._MOMENTUM))
                rows, columns = parameter.shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)

    def _orthogonal(self, update: torch.Tensor) -> torch.Tensor:
        """Return the update with singular values near 1, by a Newton-Schulz iteration."""
        first, third, fifth = self._COEFFICIENTS
        wide = update.T if update.shape[0] > update.shape[1] else update
        wide = wide / wide.norm().clamp(min=1e-7)
        for _ in range(self._STEPS):
            gram = wide @ wide.T
            wide = first * wide + (third * gram + fifth * gram @ gram) @ wide
        return wide.T if update.shape[0] > update.shape[1] else wide
