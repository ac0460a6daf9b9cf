# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What holds for every pruner that is registered, and for the base class."""

from __future__ import annotations

import dataclasses
import math
import pickle
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import PRUNERS, PrunedTokens, SliceTokens, TokenPruner, attention_received, build_pruner

GRIDS = [(4, 5), (12, 12), (1, 1), (3, 7), (1, 2)]
# settings of one method are no error for another
SETTINGS = [
    {},
    {"contextual_ratio": 0.0},
    {"contextual_ratio": 0.1, "merge_space": "encoder"},
    {"importance_scale": "paper", "temperature": 0.01, "tau": 0.7},
    {"max_importance": 1.5, "min_tokens": 3, "temperature": 0.1},
]
WHOLE_VOLUME = {"scope": "volume", "temperature": 0.1}

every_pruner = pytest.mark.parametrize("name", sorted(PRUNERS))
every_setting = pytest.mark.parametrize("settings", SETTINGS, ids=str)


@pytest.fixture(scope="module")
def slices() -> list[SliceTokens]:
    """Slices of several sizes, one by one, with uneven attention."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for number, (rows, columns) in enumerate(GRIDS):
        length = rows * columns
        query, key = (torch.randn(2, length, 8, generator=generator) * 3 for _ in range(2))
        result.append(
            SliceTokens(
                tokens=torch.randn(1, length, 6, generator=generator),
                valid=torch.ones(1, length, dtype=torch.bool),
                importance=attention_received(query, key)[None],
                keys=key.mean(0)[None],
                grids=[(rows, columns)],
                patches_per_token=4,
                numbers=[number],
            )
        )
    return result


def batch(slices: list[SliceTokens]) -> SliceTokens:
    """All slices in one batch, whose padding is longer than needed and full of large values."""
    length = max(one.valid.shape[1] for one in slices) + 2
    parts = {}
    for part, filler in (("tokens", 1e6), ("valid", False), ("importance", 1e6), ("keys", 1e6)):
        first = getattr(slices[0], part)
        parts[part] = first.new_full((len(slices), length, *first.shape[2:]), filler)
        for index, one in enumerate(slices):
            parts[part][index, : one.valid.shape[1]] = getattr(one, part)[0]
    grids, numbers = ([getattr(one, part)[0] for one in slices] for part in ("grids", "numbers"))
    return SliceTokens(**parts, grids=grids, patches_per_token=4, numbers=numbers)


def masks(pruned: PrunedTokens) -> torch.Tensor:
    return torch.stack([pruned.primary, pruned.contextual, pruned.merged_into])


@every_pruner
@every_setting
def test_batch_equals_one_by_one(name, settings, slices):
    pruner = build_pruner(name, **settings)
    together = pruner(batch(slices))
    assert masks(together).shape == (3, *batch(slices).valid.shape)
    for index, one in enumerate(slices):
        alone = pruner(one)
        length = one.valid.shape[1]
        assert torch.equal(masks(together)[:, index, :length], masks(alone)[:, 0])
        kept = alone.keep[0]
        torch.testing.assert_close(together.tokens[index, :length][kept], alone.tokens[0, kept])
        assert (together.merged_into[index, length:] == -1).all()


@every_pruner
@pytest.mark.parametrize("settings", [*SETTINGS, WHOLE_VOLUME], ids=str)
def test_keeps_some_of_every_slice_and_no_padding(name, settings, slices):
    together = batch(slices)
    pruned = build_pruner(name, **settings)(together)
    assert pruned.keep.any(dim=1).all()
    assert not (pruned.keep & ~together.valid).any()
    assert not (pruned.primary & pruned.contextual).any()
    assert torch.equal(pruned.keep, pruned.primary | pruned.contextual)
    assert 0 < pruned.keep.sum() < together.valid.sum()
    places = torch.arange(together.valid.shape[1]).expand_as(pruned.merged_into)
    assert torch.equal(pruned.merged_into == places, pruned.keep)
    if settings.get("contextual_ratio") == 0 and name != "average_pooling":  # which merges all, in its own way
        assert not pruned.contextual.any()
    else:
        # where tokens are merged, every real one is carried by one that is kept
        assert pruned.keep.gather(1, pruned.merged_into.clamp(min=0))[together.valid].all()


@every_pruner
def test_deterministic_and_leaves_its_inputs_alone(name, slices):
    together, untouched = batch(slices), batch(slices)
    pruner = build_pruner(name)
    first, second = pruner(together), pruner(together)
    assert torch.equal(masks(first), masks(second))
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(masks(first), masks(build_pruner(name)(untouched)))
    for part in ("tokens", "valid", "importance", "keys"):
        assert torch.equal(getattr(together, part), getattr(batch(slices), part))


@every_pruner
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tokens(name, dtype, slices):
    together = batch(slices)
    full = build_pruner(name)(together)
    together.tokens = together.tokens.clamp(max=1e3).to(dtype)
    pruned = build_pruner(name)(together)
    assert pruned.tokens.dtype == dtype
    assert torch.equal(masks(pruned), masks(full))  # keys and importance decide, and these are the same
    assert pruned.tokens[pruned.keep].isfinite().all()
    assert torch.equal(pruned.tokens[pruned.primary], together.tokens[pruned.primary])


@every_pruner
def test_attention_only_where_it_is_declared(name, slices):
    without = dataclasses.replace(batch(slices), importance=None, keys=None)
    pruner = build_pruner(name)
    if pruner.needs_attention:
        with pytest.raises(SettingsError, match="needs the attention"):
            pruner(without)
    else:
        assert pruner(without).keep.any(dim=1).all()


@every_pruner
def test_frozen_dataclass_that_build_pruner_rebuilds(name):
    pruner = PRUNERS[name]()
    with pytest.raises(dataclasses.FrozenInstanceError):
        pruner.contextual_ratio = 0.5
    assert build_pruner(name, **dataclasses.asdict(pruner)) == pruner
    assert build_pruner(name) == pruner
    changed = build_pruner(name, contextual_ratio=0.25, merge_space="encoder")
    assert (type(changed), changed.contextual_ratio, changed.merge_space) == (PRUNERS[name], 0.25, "encoder")
    assert pickle.loads(pickle.dumps(changed)) == changed
    assert len({changed, pruner, PRUNERS[name]()}) == 2


@every_pruner
@pytest.mark.parametrize(
    "wrong",
    [{"contextual_ratio": -0.1}, {"contextual_ratio": 1.5}, {"contextual_ratio": math.nan}, {"merge_space": ""}],
)
def test_settings_outside_their_range(name, wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        build_pruner(name, **wrong)


@pytest.mark.parametrize("name", ["Nucleus", "", "random "])
def test_unknown_name(name):
    with pytest.raises(SettingsError, match="nucleus"):
        build_pruner(name)


# the last is a class variable of every pruner, not a setting
@pytest.mark.parametrize("name", ["nucleus", "none", None])
@pytest.mark.parametrize("setting", ["taus", "temperatur", "needs_attention"])
def test_unknown_setting(name, setting):
    with pytest.raises(SettingsError, match=f"named {setting};"):
        build_pruner(name, **{"tau": 0.5, setting: 1})


@pytest.mark.parametrize("name", ["none", None])
def test_no_pruning(name):
    assert build_pruner(name) is None
    assert build_pruner(name, tau=0.5, temperature=1.0) is None


@dataclass(frozen=True)
class FirstTokens(TokenPruner):
    """Selects the first tokens of the batch's rows, without a look at what is valid."""

    count: int = 3

    needs_attention = False

    def score(self, slices: SliceTokens) -> torch.Tensor:
        return torch.zeros(slices.valid.shape)

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        return torch.arange(score.shape[1]).expand_as(score) < self.count


def test_one_set_of_settings_serves_every_method(monkeypatch):
    monkeypatch.setitem(PRUNERS, "first", FirstTokens)
    assert build_pruner("first", tau=0.5, count=2) == FirstTokens(count=2)
    assert build_pruner("nucleus", tau=0.5, count=2).tau == 0.5


def test_base_class_masks_padding_and_merges_by_tokens_without_keys(slices):
    together = dataclasses.replace(batch(slices), importance=None, keys=None)
    pruned = FirstTokens(contextual_ratio=0.1)(together)
    assert pruned.primary.sum(1).tolist() == [3, 3, 1, 3, 2]
    by_tokens = FirstTokens(contextual_ratio=0.1)(dataclasses.replace(together, keys=together.tokens))
    by_keys = FirstTokens(contextual_ratio=0.1)(batch(slices))
    assert torch.equal(pruned.merged_into, by_tokens.merged_into)
    assert not torch.equal(pruned.merged_into, by_keys.merged_into)


def test_abstract_base_class_selects_nothing():
    with pytest.raises(TypeError, match="select"):
        TokenPruner()


def test_needs_neither_monai_nor_transformers():
    code = "import sys, monai_medpruner.pruners; print(sorted({'monai', 'transformers'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr
