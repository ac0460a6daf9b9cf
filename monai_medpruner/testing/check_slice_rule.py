# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What must hold for every slice rule."""

from __future__ import annotations

import dataclasses
import math
import pickle

import torch

from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms.slice_rules import SliceChoice, SliceRule, SliceStack

__all__ = ["check_slice_rule"]

_DEPTHS = (1, 2, 3, 17, 40)


def check_slice_rule(rule: SliceRule) -> None:
    """Check a slice rule, with the values that its fields have, on volumes of several depths.

    - It is a frozen dataclass that its fields rebuild, and that can be pickled.
    - The kept indices are whole numbers, ascending, within the volume, and at least one.
    - Distances, where they are measured, are one finite number a slice.
    - The same volume gives the same choice and is not changed; memory layout and slice axis do not matter.
    - ``at_most`` returns a rule of the same class that keeps no more slices than asked for, or raises SettingsError,
      which it never does where the volume has no more.

    Intensities are in [0, 1], slices lie with uneven gaps.

    Args:
        rule: to be checked.

    Raises:
        AssertionError: something does not hold; the message says what.
    """
    _check_dataclass(rule)
    for depth in _DEPTHS:
        stack = _stack(depth)
        before = stack.voxels.clone()
        choice = rule.choose(stack)
        _check_choice(choice, depth)
        _require(torch.equal(stack.voxels, before), "voxels must not be changed in place")
        _require(rule.choose(stack) == choice, "the same volume must give the same choice")
        _check_layouts(rule, stack, choice)
        _check_at_most(rule, stack)


def _stack(depth: int) -> SliceStack:
    """Slices that drift, some hardly, some far, in uneven gaps."""
    generator = torch.Generator().manual_seed(depth)
    steps = torch.randn(1, 12, 10, depth, generator=generator) * torch.rand(depth, generator=generator) ** 4
    voxels = steps.cumsum(-1).mul(0.2).add(0.5).clamp(0, 1)
    gaps = 0.5 + 4 * torch.rand(depth, generator=generator, dtype=torch.float64)
    return SliceStack(voxels, 3, tuple(gaps.cumsum(0).tolist()), (1.5, 2.0))


def _check_dataclass(rule: SliceRule) -> None:
    kind = type(rule)
    parameters = getattr(kind, "__dataclass_params__", None)
    _require(parameters is not None and parameters.frozen, f"{kind.__name__} must be a frozen dataclass")
    values = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule) if field.init}
    _require(
        "__dataclass_fields__" in vars(kind) and kind(**values) == rule,
        f"{kind.__name__} must be a dataclass whose fields rebuild it",
    )
    _require(pickle.loads(pickle.dumps(rule)) == rule, f"{kind.__name__} must come back from pickle as it was")


def _check_choice(choice: SliceChoice, depth: int) -> None:
    kept, distances = choice.kept, choice.distances
    _require(len(kept) > 0, "at least one slice must be kept")
    _require(all(type(index) is int for index in kept), "kept indices must be int")
    _require(kept == sorted(set(kept)), f"kept indices must be ascending and different, got {kept}")
    _require(kept[0] >= 0 and kept[-1] < depth, f"kept indices must lie within the {depth} slices, got {kept}")
    if distances is not None:
        _require(len(distances) == depth, f"distances must be one a slice: {depth}, got {len(distances)}")
        _require(all(map(math.isfinite, distances)), "distances must be finite")


def _check_layouts(rule: SliceRule, stack: SliceStack, choice: SliceChoice) -> None:
    slices_first = stack.voxels.movedim(-1, 0).contiguous().movedim(0, -1)
    along_rows = stack.voxels.movedim(-1, 1)
    for other in (
        dataclasses.replace(stack, voxels=slices_first),
        dataclasses.replace(stack, voxels=along_rows, axis=1),
        dataclasses.replace(stack, voxels=along_rows.contiguous(), axis=1),
    ):
        _require(rule.choose(other).kept == choice.kept, "memory layout and slice axis must not change the choice")


def _check_at_most(rule: SliceRule, stack: SliceStack) -> None:
    depth = stack.depth
    for limit in sorted({1, 2, (depth + 1) // 3, depth // 2, depth - 1, depth, depth + 5} - {-1, 0}):
        try:
            found = rule.at_most(stack, limit)
        except SettingsError:
            _require(limit < depth, f"at_most must not refuse {limit} slices of a volume that has {depth}")
            continue
        _require(type(found) is type(rule), f"at_most must return a {type(rule).__name__}, got {found!r}")
        _check_dataclass(found)
        count = len(found.choose(stack).kept)
        _require(count <= limit, f"at_most({limit}) returned a rule that keeps {count} slices")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
