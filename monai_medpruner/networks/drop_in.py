# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What the wrapper refuses or warns of in place of a stock model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from monai_medpruner.errors import PromptError, UnsupportedModelError

__all__ = ["named_arguments", "refuse_second_model", "refuse_wrapped", "values_turned_off", "warn_of_missing_gradients"]


def named_arguments(given: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Add arguments that were given by position or by an own name.

    Raises:
        TypeError: one was given twice.
    """
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if arguments.get(name) is not None:
            raise TypeError(f"{name} was given twice")
    return {**arguments, **given}


def values_turned_off(arguments: Mapping[str, Any], config: Any) -> dict[str, None]:
    """Return the generation values that are None in a call, which turns off those of the model's configuration.

    Args:
        arguments: of the call.
        config: the model's ``generation_config``.
    """
    return {name: None for name, value in arguments.items() if value is None and hasattr(config, name)}


def refuse_wrapped(model: nn.Module) -> None:
    """Refuse models whose parts are not where a stock model has them.

    Raises:
        UnsupportedModelError: the model is wrapped by PEFT, or weights are offloaded.
    """
    if hasattr(model, "get_base_model"):
        raise UnsupportedModelError(
            f"{type(model).__name__} wraps the model (PEFT): pass its get_base_model(), whose layers hold the adapter, "
            "or merge the adapter with merge_and_unload()"
        )
    if any(one.is_meta for one in model.parameters()):
        raise UnsupportedModelError(
            "weights of the model are offloaded (accelerate, device_map): the vision encoder's weights must be on the "
            "device. Load the whole model on one device, or load it quantized"
        )


def refuse_second_model(arguments: Mapping[str, Any]) -> None:
    """Refuse assisted generation.

    Raises:
        PromptError: there is an ``assistant_model``.
    """
    if arguments.get("assistant_model") is not None:
        raise PromptError(
            "assistant_model is not supported with pruning: the assistant would read the pruned prompt without the "
            "slices. Leave it out, or use prompt_lookup_num_tokens"
        )


def warn_of_missing_gradients(model: Any) -> None:
    """Warn where a parameter outside the language model asks for a gradient."""
    language = {*model.get_decoder().parameters(), *model.get_output_embeddings().parameters()}
    if any(one.requires_grad and one not in language for one in model.parameters()):
        warnings.warn(
            "slices are encoded without gradients: the vision encoder and the projector are not trained. Freeze them "
            "(requires_grad_(False)), or train the stock model",
            stacklevel=3,
        )
