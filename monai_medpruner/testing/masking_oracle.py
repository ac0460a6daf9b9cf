# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The independent check: the stock model on the full prompt, dropped tokens masked out of every layer's attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from monai_medpruner.networks.families import family_of

__all__ = [
    "Mask",
    "Positions",
    "additive",
    "causal_mask",
    "family_positions",
    "masked_greedy",
    "masked_logits",
    "original_positions",
    "renumbered_positions",
]

#: model, inputs and the mask of kept tokens to the positions of the full prompt, ``(..., B, L)``
Positions = Callable[[Any, dict[str, Any], torch.Tensor], torch.Tensor]
#: model, ids ``(B, L)`` and the mask of kept tokens to what the model takes as attention mask
Mask = Callable[[Any, torch.Tensor, torch.Tensor], Any]


@torch.no_grad()
def masked_logits(
    model: Any,
    inputs: dict[str, Any],
    keep: torch.Tensor,
    new_ids: torch.Tensor | None = None,
    *,
    positions: Positions | None = None,
    mask: Mask | None = None,
) -> torch.Tensor:
    """The stock model's logits on the full prompt and n new tokens.

    A token is seen by itself and by later tokens that are kept; dropped tokens and padding are seen by nobody else.

    Args:
        model: a stock model of a registered family.
        inputs: what the model's processor returns for B prompts of L tokens.
        keep: bool ``(B, L)``, the tokens that a pruned prompt would hold.
        new_ids: int64 ``(B, n)``; None for no new tokens.
        positions: numbers the tokens of the full prompt; None takes :func:`family_positions`.
        mask: says who sees whom; None takes :func:`causal_mask`.

    Returns:
        Shape ``(B, L + n, vocabulary)``; rows of dropped tokens mean nothing.
    """
    numbers = (positions or family_positions)(model, inputs, keep)
    ids = inputs["input_ids"]
    if new_ids is not None:
        keep = torch.cat([keep, torch.ones_like(new_ids, dtype=torch.bool)], 1)
        further = torch.arange(1, new_ids.shape[1] + 1, device=ids.device)
        numbers = torch.cat([numbers, numbers[..., -1:] + further], -1)
        ids = torch.cat([ids, new_ids], 1)
    attention_mask = (mask or causal_mask)(model, ids, keep)
    images = {name: inputs[name] for name in family_of(model).image_inputs}
    output = model(input_ids=ids, attention_mask=attention_mask, position_ids=numbers, **images, use_cache=False)
    return output.logits


def masked_greedy(
    model: Any,
    inputs: dict[str, Any],
    keep: torch.Tensor,
    count: int,
    *,
    positions: Positions | None = None,
    mask: Mask | None = None,
    suppress_tokens: Sequence[int] = (),
) -> torch.Tensor:
    """The tokens that greedy decoding gives under the same mask, int64 ``(B, count)``, without any cache.

    Arguments as in :func:`masked_logits`, and ``suppress_tokens`` as in the model's ``generate``.
    """
    new_ids = torch.zeros(len(keep), 0, dtype=torch.long, device=keep.device)
    for _ in range(count):
        logits = masked_logits(model, inputs, keep, new_ids, positions=positions, mask=mask)
        last = logits[:, -1]
        last[:, list(suppress_tokens)] = -torch.inf
        new_ids = torch.cat([new_ids, last.argmax(-1, keepdim=True)], 1)
    return new_ids


def additive(seen: torch.Tensor) -> torch.Tensor:
    """Turn a bool mask ``(B, L, L)`` of who sees whom into what attention adds to its scores, ``(B, 1, L, L)``.

    Everyone sees itself, so that no row is empty.
    """
    seen = seen | torch.eye(seen.shape[-1], dtype=torch.bool, device=seen.device)
    zeros = torch.zeros(seen.shape, device=seen.device)
    return zeros.masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


def causal_mask(model: Any, ids: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Every layer looks back at kept tokens."""
    length = ids.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    return additive(lower & keep[:, None, :]).to(model.dtype)


def renumbered_positions(model: Any, inputs: dict[str, Any], keep: torch.Tensor) -> torch.Tensor:
    """Kept tokens counted without gaps, ``(B, L)``."""
    return (keep.cumsum(1) - 1).clamp(min=0)


def original_positions(model: Any, inputs: dict[str, Any], keep: torch.Tensor) -> torch.Tensor:
    """All tokens of the full prompt counted, padding left out, ``(B, L)``."""
    return (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)


def family_positions(model: Any, inputs: dict[str, Any], keep: torch.Tensor) -> torch.Tensor:
    """What the model's family says: original positions where it keeps them, else kept tokens without gaps.

    It uses the family's own code; a function that does not is the stronger check.
    """
    family = family_of(model)
    mask = inputs["attention_mask"]
    order = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    original = family.positions(inputs, family.token_grids(inputs), order, mask)
    if family.preserves_position_ids:
        return original
    return renumbered_positions(model, inputs, keep).expand_as(original)
