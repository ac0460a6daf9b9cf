# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What holds for every pruner that is registered, and for the base class."""

from __future__ import annotations

import dataclasses
import math
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import (
    PRUNERS,
    ClassAttention,
    Keys,
    PrunedTokens,
    ReceivedAttention,
    SliceTokens,
    TokenPruner,
    select_pruner,
)
from monai_medpruner.pruners.fixed_share import FixedSharePruner
from monai_medpruner.testing import check_pruner, padded_batch, random_slices

GRIDS = [(4, 5), (12, 12), (1, 1), (3, 7), (1, 2)]
# of every pruner, and of some
SETTINGS = [
    {},
    {"contextual_ratio": 0.0},
    {"contextual_ratio": 0.1, "merge_space": "encoder"},
    {"importance_scale": "paper", "temperature": 0.01, "tau": 0.7},
    {"max_importance": 1.5, "min_tokens": 3, "temperature": 0.1},
    {"pool": 3},
    {"keep_ratio": 0.6, "seed": 3},
    {"keep_ratio": 0.6, "contextual_ratio": 0.2},
    {"attention": "class", "merge_space": "projected"},
    {"object_share": 0.7, "object_block": 0, "keep_ratio": 0.4},
]
WHOLE_VOLUME = {"scope": "volume", "temperature": 0.1}
CASES = [
    pytest.param(name, settings, id=f"{name}-{settings}")
    for name, pruner in sorted(PRUNERS.items())
    for settings in [*SETTINGS, WHOLE_VOLUME]
    if set(settings) <= {field.name for field in dataclasses.fields(pruner)}
    and not (name == "cdpruner" and settings.get("merge_space") == "encoder")  # which it refuses
]

every_pruner = pytest.mark.parametrize("name", sorted(PRUNERS))


@pytest.fixture(scope="module")
def slices() -> list[SliceTokens]:
    """Slices of several sizes, one by one, with uneven attention."""
    return random_slices([ReceivedAttention(), Keys()], GRIDS)


@pytest.fixture(scope="module")
def richer_slices(slices) -> list[SliceTokens]:
    """The same slices with whatever else a registered pruner asks for."""
    asked = {signal for pruner in PRUNERS.values() for signal in pruner().signals}
    further = random_slices({ReceivedAttention(0), ClassAttention(), *asked}, GRIDS, seed=1)
    return [
        dataclasses.replace(one, signals={**other.signals, **one.signals})
        for one, other in zip(slices, further, strict=True)
    ]


def batch(slices: list[SliceTokens]) -> SliceTokens:
    """All slices in one batch, whose padding is longer than needed and full of large values."""
    return padded_batch(slices)


def masks(pruned: PrunedTokens) -> torch.Tensor:
    return torch.stack([pruned.primary, pruned.contextual, pruned.merged_into])


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_passes_what_others_run_on_theirs(name, settings):
    check_pruner(select_pruner(name, **settings))


@pytest.mark.parametrize(
    ("name", "settings"), [case for case in CASES if not select_pruner(case.values[0], **case.values[1]).whole_volume]
)
def test_batch_equals_one_by_one(name, settings, richer_slices):
    pruner = select_pruner(name, **settings)
    together = pruner(batch(richer_slices))
    assert masks(together).shape == (3, *batch(richer_slices).valid.shape)
    for index, one in enumerate(richer_slices):
        alone = pruner(one)
        length = one.valid.shape[1]
        assert torch.equal(masks(together)[:, index, :length], masks(alone)[:, 0])
        kept = alone.keep[0]
        torch.testing.assert_close(together.tokens[index, :length][kept], alone.tokens[0, kept])
        assert (together.merged_into[index, length:] == -1).all()


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_keeps_some_of_every_slice_and_no_padding(name, settings, richer_slices):
    together = batch(richer_slices)
    pruned = select_pruner(name, **settings)(together)
    assert pruned.keep.any(dim=1).all()
    assert not (pruned.keep & ~together.valid).any()
    assert not (pruned.primary & pruned.contextual).any()
    assert torch.equal(pruned.keep, pruned.primary | pruned.contextual)
    assert 0 < pruned.keep.sum() < together.valid.sum()
    places = torch.arange(together.valid.shape[1]).expand_as(pruned.merged_into)
    assert torch.equal(pruned.merged_into == places, pruned.keep)
    if select_pruner(name, **settings).contextual_ratio == 0 and name != "average_pooling":  # which merges all
        assert not pruned.contextual.any()
    else:
        # where tokens are merged, every real one is carried by one that is kept
        carried = pruned.keep.gather(1, pruned.merged_into.clamp(min=0))
        if issubclass(PRUNERS[name], FixedSharePruner):
            # unless the only kept token of a slice leaves no room for a contextual one
            carried |= ~pruned.contextual.any(1, keepdim=True)
            assert pruned.contextual.any(1).tolist() == [True, True, False, True, False]
        assert carried[together.valid].all()


@every_pruner
def test_deterministic_and_leaves_its_inputs_alone(name, richer_slices):
    together, untouched = batch(richer_slices), batch(richer_slices)
    pruner = select_pruner(name)
    first, second = pruner(together), pruner(together)
    assert torch.equal(masks(first), masks(second))
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(masks(first), masks(select_pruner(name)(untouched)))
    for part in ("tokens", "valid"):
        assert torch.equal(getattr(together, part), getattr(batch(richer_slices), part))
    for signal, values in batch(richer_slices).signals.items():
        assert torch.equal(together.signal(signal), values)


@every_pruner
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tokens(name, dtype, richer_slices):
    together = batch(richer_slices)
    full = select_pruner(name)(together)
    together = dataclasses.replace(together, tokens=together.tokens.clamp(max=1e3).to(dtype))
    pruned = select_pruner(name)(together)
    assert pruned.tokens.dtype == dtype
    if name not in ("divprune", "cdpruner", "rare_tokens"):  # which decide by the tokens
        assert torch.equal(masks(pruned), masks(full))  # keys and importance decide, and these are the same
    assert pruned.tokens[pruned.keep].isfinite().all()
    assert torch.equal(pruned.tokens[pruned.primary], together.tokens[pruned.primary])


@every_pruner
def test_attention_only_where_it_is_declared(name, richer_slices):
    without = dataclasses.replace(batch(richer_slices), signals={})
    pruner = select_pruner(name)
    if pruner.signals:
        needed = ", ".join(sorted(map(repr, pruner.signals)))
        with pytest.raises(SettingsError, match=re.escape(f"{type(pruner).__name__} needs {needed}, which")):
            pruner(without)
    else:
        assert pruner(without).keep.any(dim=1).all()


@every_pruner
def test_frozen_dataclass_that_its_fields_rebuild(name):
    pruner = PRUNERS[name]()
    with pytest.raises(dataclasses.FrozenInstanceError):
        pruner.contextual_ratio = 0.5
    assert select_pruner(name, **dataclasses.asdict(pruner)) == pruner
    assert select_pruner(name) == pruner
    space = "projected" if name in ("cdpruner", "visionzip") else "encoder"
    changed = select_pruner(name, contextual_ratio=0.25, merge_space=space)
    assert (type(changed), changed.contextual_ratio, changed.merge_space) == (PRUNERS[name], 0.25, space)
    assert pickle.loads(pickle.dumps(changed)) == changed
    assert len({changed, pruner, PRUNERS[name]()}) == 2


@every_pruner
@pytest.mark.parametrize(
    "wrong",
    [{"contextual_ratio": -0.1}, {"contextual_ratio": 1.5}, {"contextual_ratio": math.nan}, {"merge_space": ""}],
)
def test_settings_outside_their_range(name, wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        select_pruner(name, **wrong)


@dataclass(frozen=True)
class FirstTokens(TokenPruner):
    """Selects the first tokens of the batch's rows, without a look at what is valid."""

    count: int = 3

    @property
    def signals(self):
        return frozenset()

    def score(self, slices: SliceTokens) -> torch.Tensor:
        return torch.zeros(slices.valid.shape)

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        return torch.arange(score.shape[1]).expand_as(score) < self.count


@dataclass(frozen=True)
class FirstTokensMergedByKeys(FirstTokens):
    @property
    def signals(self):
        return frozenset({Keys()})


def test_base_class_masks_padding_and_merges_by_tokens_without_keys(slices):
    together = dataclasses.replace(batch(slices), signals={})
    pruned = FirstTokens(contextual_ratio=0.1)(together)
    assert pruned.primary.sum(1).tolist() == [3, 3, 1, 3, 2]
    merged_by_keys = FirstTokensMergedByKeys(contextual_ratio=0.1)
    by_tokens = merged_by_keys(dataclasses.replace(together, signals={Keys(): together.tokens}))
    by_keys = merged_by_keys(batch(slices))
    assert torch.equal(pruned.merged_into, by_tokens.merged_into)
    assert not torch.equal(pruned.merged_into, by_keys.merged_into)


def test_a_signal_that_was_not_computed(slices):
    with pytest.raises(SettingsError, match=r"Keys\(block=2\) was not computed .* only Keys\(block=None\), Received"):
        slices[0].signal(Keys(2))


def test_abstract_base_class_selects_nothing():
    with pytest.raises(TypeError, match="select"):
        TokenPruner()


def test_needs_neither_monai_nor_transformers():
    code = "import sys, monai_medpruner.pruners; print(sorted({'monai', 'transformers'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr
