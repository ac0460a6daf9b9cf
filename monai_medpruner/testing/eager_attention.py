# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The attention weights of a stock model's block, as its eager implementation computes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

__all__ = ["eager_attention_weights"]


@torch.no_grad()
def eager_attention_weights(model: Any, attention: Any, run: Callable[[], Any]) -> list[torch.Tensor]:
    """Run a model and return the weights that one of its attention modules computes.

    Args:
        model: a stock model of transformers; its attention implementation is "eager" during the run.
        attention: a module whose file has the function ``eager_attention_forward``, as all of transformers' have.
        run: the call during which the module is used.

    Returns:
        Per call of the module ``(B, heads, M, M)``.

    Raises:
        AssertionError: the module's file has no such function, or the module does not call it.
    """
    modeling = sys.modules[type(attention).__module__]
    eager = getattr(modeling, "eager_attention_forward", None)
    if eager is None:
        raise AssertionError(
            f"{modeling.__name__} has no eager_attention_forward whose weights the importance could be compared with"
        )
    weights: list[torch.Tensor] = []

    def remember(module: Any, *args: Any, **kwargs: Any) -> Any:
        output = eager(module, *args, **kwargs)
        if module is attention:
            weights.append(output[1])
        return output

    with mock.patch.object(modeling, "eager_attention_forward", remember), _eager(model):
        run()
    if not weights:
        raise AssertionError(f"{type(attention).__name__} did not call eager_attention_forward")
    return weights


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Let all parts of a model use the eager attention while the block runs."""
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    before = [(config, config._attn_implementation) for config in configs.values()]
    try:
        for config, _ in before:
            config._attn_implementation = "eager"
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation
