# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The combined optimizer gives the same weights as two separate ones, also after resuming."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_medpruner.errors import SettingsError
from monai_medpruner.training import MuonAdamW


def network():
    torch.manual_seed(0)
    return nn.ModuleDict({"embed": nn.Embedding(5, 4), "inner": nn.Linear(4, 4), "head": nn.Linear(4, 3)})


def steps(net, optimizers, schedules, numbers):
    for number in numbers:
        tokens = torch.randint(5, (8,), generator=torch.Generator().manual_seed(number))
        loss = net["head"](net["inner"](net["embed"](tokens)).tanh()).square().mean()
        for one in optimizers:
            one.zero_grad()
        loss.backward()
        for one in (*optimizers, *schedules):
            one.step()


def schedule(optimizer, rates):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=10, cycle_momentum=False)


def same(left, right):
    return all(torch.equal(value, right.state_dict()[name]) for name, value in left.state_dict().items())


def test_uses_muon_for_hidden_matrices_and_adamw_for_the_rest():
    expected, ours = network(), network()
    rest = [*expected["embed"].parameters(), expected["inner"].bias, *expected["head"].parameters()]
    pair = [
        torch.optim.Muon([expected["inner"].weight], lr=0.02, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=0.002, weight_decay=0.01),
    ]
    steps(expected, pair, [schedule(pair[0], 0.02), schedule(pair[1], 0.002)], range(6))
    one = MuonAdamW(ours.named_parameters(), 0.02, 0.002)
    steps(ours, [one], [schedule(one, [0.02, 0.002])], range(6))
    assert not same(network(), ours)
    assert same(expected, ours)


def test_resumed_run_equals_an_uninterrupted_one():
    whole, broken = network(), network()
    one = MuonAdamW(whole.named_parameters(), 0.02, 0.002)
    steps(whole, [one], [schedule(one, [0.02, 0.002])], range(6))
    first = MuonAdamW(broken.named_parameters(), 0.02, 0.002)
    rates = schedule(first, [0.02, 0.002])
    steps(broken, [first], [rates], range(3))
    resumed = network()
    resumed.load_state_dict(broken.state_dict())
    second = MuonAdamW(resumed.named_parameters(), 0.02, 0.002)
    further = schedule(second, [0.02, 0.002])
    second.load_state_dict(first.state_dict())
    further.load_state_dict(rates.state_dict())
    steps(resumed, [second], [further], range(3, 6))
    assert same(whole, resumed)


def test_error_names_the_required_version(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(SettingsError, match=r"PyTorch 2\.9"):
        MuonAdamW(network().named_parameters(), 0.02, 0.002)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_float32_gives_the_updates_of_pytorchs_muon_up_to_rounding(shape):
    torch.manual_seed(1)
    expected = nn.ParameterDict({"inner": torch.randn(shape)})
    ours = nn.ParameterDict({"inner": expected["inner"].detach().clone(), "embed": torch.zeros(2, 2)})
    start = expected["inner"].detach().clone()
    stock = torch.optim.Muon(list(expected.parameters()), lr=0.1, weight_decay=0.01)
    one = MuonAdamW(ours.named_parameters(), 0.1, 0.002, float32=True)
    for number in range(5):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(number))
        expected["inner"].grad, ours["inner"].grad = gradient.clone(), gradient.clone()
        stock.step()
        one.step()
    moved = (expected["inner"] - start).norm()
    assert (ours["inner"] - expected["inner"]).norm() < 0.02 * moved
