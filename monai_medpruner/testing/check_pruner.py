# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What must hold for every pruner."""

from __future__ import annotations

import dataclasses
import pickle

import torch

from monai_medpruner.errors import BudgetError
from monai_medpruner.pruners import PrunedTokens, SliceTokens, TokenPruner
from monai_medpruner.testing.random_inputs import padded_batch, random_slices

__all__ = ["check_pruner"]

_GRIDS = [(4, 5), (12, 12), (1, 1), (3, 7), (1, 2)]


def check_pruner(pruner: TokenPruner) -> None:
    """Check a pruner, with the values that its fields have, on random slices of several sizes.

    - It is a frozen dataclass that its fields rebuild, and that can be pickled.
    - Slices in a batch give what each gives alone; of a pruner of whole volumes only that padding changes nothing.
    - Tokens that were not encoded, which are holes in the grid, are neither kept nor merged.
    - A limit of tokens is kept, and only selected tokens give way to it; one that is too small is refused.
    - No slice is left empty, padding is never kept, and ``merged_into`` leads from every token to one that is kept.
    - The same slices give the same result, and are not changed.
    - Tokens in half precision stay so, are finite, and selected ones are left as they are.

    Args:
        pruner: to be checked, with settings that keep at least one token of every slice.

    Raises:
        AssertionError: something does not hold; the message says what.
    """
    _check_dataclass(pruner)
    slices = random_slices(pruner.signals, _GRIDS)
    _check_determinism(pruner, slices)
    together = padded_batch(slices)
    _check_result(together, pruner(together))
    _check_batch(pruner, slices)
    _check_holes(pruner, together)
    _check_limit(pruner, together)
    for dtype in (torch.float16, torch.bfloat16):
        _check_dtype(pruner, together, dtype)


def _check_dataclass(pruner: TokenPruner) -> None:
    name = type(pruner).__name__
    frozen = getattr(type(pruner), "__dataclass_params__", None)
    _require(frozen is not None and frozen.frozen, f"{name} must be a frozen dataclass")
    _require(
        "__dataclass_fields__" in vars(type(pruner)) and type(pruner)(**dataclasses.asdict(pruner)) == pruner,
        f"{name} must be a dataclass whose fields rebuild it",
    )
    _require(pickle.loads(pickle.dumps(pruner)) == pruner, f"{name} must come back from pickle as it was")


def _check_batch(pruner: TokenPruner, slices: list[SliceTokens]) -> None:
    """Padding, and unless the pruner looks at all slices the other slices of a batch, change nothing."""
    together = pruner(padded_batch(slices))
    exact = pruner(padded_batch(slices, padding=0, filler=-1e3))
    alone = None if pruner.whole_volume else [pruner(one) for one in slices]
    for index, one in enumerate(slices):
        length = one.valid.shape[1]
        expected, row = (exact, index) if alone is None else (alone[index], 0)
        kept = expected.keep[row, :length]
        for result in (together, exact):
            _require(
                torch.equal(_masks(result)[:, index, :length], _masks(expected)[:, row, :length]),
                f"slice {index} of a batch must be pruned as without padding"
                + ("" if pruner.whole_volume else " and without the other slices"),
            )
            torch.testing.assert_close(result.tokens[index, :length][kept], expected.tokens[row, :length][kept])
            _require(bool((result.merged_into[index, length:] == -1).all()), "merged_into must be -1 at padding")


def _check_result(slices: SliceTokens, pruned: PrunedTokens) -> None:
    valid, merged_into = slices.valid, pruned.merged_into
    for part in (pruned.primary, pruned.contextual):
        _require(part.dtype == torch.bool, "primary and contextual must be bool masks")
    for part in (pruned.primary, pruned.contextual, merged_into):
        _require(part.shape == valid.shape, f"the masks must have the shape {tuple(valid.shape)} of the batch")
    _require(pruned.tokens.shape == slices.tokens.shape, "tokens must keep their shape: dropped ones stay in place")
    _require(bool(pruned.keep.any(dim=1).all()), "at least one token of every slice must be kept")
    _require(not (pruned.keep & ~valid).any(), "padding must never be kept")
    _require(not (pruned.primary & pruned.contextual).any(), "no token is both primary and contextual")
    places = torch.arange(valid.shape[1]).expand_as(merged_into)
    _require(
        torch.equal(merged_into == places, pruned.keep), "merged_into must name the token itself where it is kept, only"
    )
    carried = merged_into >= 0
    _require(
        bool(pruned.keep.gather(1, merged_into.clamp(min=0))[carried].all()), "a merged token's carrier must be kept"
    )
    _require(
        torch.equal(pruned.tokens[pruned.primary], slices.tokens[pruned.primary]),
        "selected tokens must stay as they are",
    )


def _check_holes(pruner: TokenPruner, slices: SliceTokens) -> None:
    """Tokens inside the grid that were not encoded are as padding is."""
    drawn = torch.rand(slices.valid.shape, generator=torch.Generator().manual_seed(9)) < 0.6
    drawn[:, 0] |= ~(drawn & slices.valid).any(1)  # something is left of every slice
    pierced = dataclasses.replace(slices, valid=slices.valid & drawn)
    pruned = pruner(pierced)
    _check_result(pierced, pruned)
    holes = slices.valid & ~drawn
    _require(not (pruned.keep & holes).any(), "tokens that were not encoded must never be kept")
    _require(bool((pruned.merged_into[holes] == -1).all()), "merged_into must be -1 where a token was not encoded")
    changed = slices.tokens.masked_fill(holes[..., None], 7.0)
    kept = pruned.tokens[pruned.keep]
    _require(
        torch.equal(pruner(dataclasses.replace(pierced, tokens=changed)).tokens[pruned.keep], kept),
        "tokens that were not encoded must not change others",
    )


def _check_limit(pruner: TokenPruner, slices: SliceTokens) -> None:
    """At every limit from the least that the slices can keep to more than the pruner keeps by itself."""
    free = pruner(slices)
    kept = int(free.keep.sum())
    least = sum(pruner.least_tokens(rows * columns) for rows, columns in slices.grids)
    _require(least >= len(slices.grids), "least_tokens must be at least one for every slice")
    roomy = pruner(slices, kept + 1)
    _require(torch.equal(_masks(roomy), _masks(free)), "a limit above what is kept must change nothing")
    for limit in sorted({least, (least + kept) // 2, max(least, kept - 1)}):
        limited = pruner(slices, limit)
        _check_result(slices, limited)
        _require(
            int(limited.keep.sum()) <= limit, f"{int(limited.keep.sum())} tokens are kept under a limit of {limit}"
        )
    try:
        pruner(slices, len(slices.grids) - 1)
    except BudgetError:
        return
    raise AssertionError("a limit below one token for every slice must be refused with a BudgetError")


def _check_determinism(pruner: TokenPruner, slices: list[SliceTokens]) -> None:
    together, untouched = padded_batch(slices), padded_batch(slices)
    first, second = pruner(together), pruner(together)
    for part in ("tokens", "valid"):
        _require(torch.equal(getattr(together, part), getattr(untouched, part)), f"{part} must not be changed in place")
    for signal, values in untouched.signals.items():
        _require(torch.equal(together.signal(signal), values), f"{signal!r} must not be changed in place")
    _require(
        torch.equal(_masks(first), _masks(second)) and torch.equal(first.tokens, second.tokens),
        "the same slices must give the same result",
    )


def _check_dtype(pruner: TokenPruner, slices: SliceTokens, dtype: torch.dtype) -> None:
    rounded = dataclasses.replace(slices, tokens=slices.tokens.clamp(max=1e3).to(dtype))
    pruned = pruner(rounded)
    _require(pruned.tokens.dtype == dtype, f"tokens in {dtype} must stay so, got {pruned.tokens.dtype}")
    _require(bool(pruned.tokens[pruned.keep].isfinite().all()), f"kept tokens in {dtype} must be finite")
    _require(
        torch.equal(pruned.tokens[pruned.primary], rounded.tokens[pruned.primary]),
        "selected tokens must stay as they are",
    )


def _masks(pruned: PrunedTokens) -> torch.Tensor:
    return torch.stack([pruned.primary.long(), pruned.contextual.long(), pruned.merged_into])


def _require(condition: bool | torch.Tensor, message: str) -> None:
    if not condition:
        raise AssertionError(message)
