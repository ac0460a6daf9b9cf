# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The benchmark on a real encoder: its arithmetic against plain loops, its signals against the stock model's."""

from __future__ import annotations

import importlib
import itertools
import json
import math

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model


@pytest.fixture
def benchmark(repository, monkeypatch):
    """Return a function: name of a benchmark -> its module."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    return importlib.import_module


def test_the_page_is_the_results(repository, benchmark):
    found = json.loads((repository / "benchmarks" / "results" / "real_encoder.json").read_text(encoding="utf-8"))
    page = (repository / "docs" / "evidence_encoder.md").read_text(encoding="utf-8")
    assert page == benchmark("real_encoder_page").page(found)


def test_token_labels_by_hand(benchmark):
    """A quarter of a token's 196 pixels is 49."""
    module = benchmark("real_encoder_features")
    labels = torch.zeros(module.SIDE, module.SIDE)
    labels[0:7, 0:7] = 3  # 49 pixels of the first token
    labels[0:7, 14:20] = 3  # 42 of the second
    labels[14:28, 0:5] = 2  # 70 of the first of the next row, of which 4 takes none
    labels[14:28, 5:14] = 4  # 126 of it
    found = module.token_labels(labels).reshape(module.GRID, module.GRID)
    assert found[0, 0] == 3
    assert found[1, 0] == 4
    assert found.astype(bool).sum() == 2
    assert module.token_share(labels > 0).reshape(module.GRID, module.GRID)[0, 1] == pytest.approx(42 / 196)


def test_square_keeps_the_plane_in_the_middle(benchmark):
    module = benchmark("real_encoder_features")
    found = module.square(torch.ones(2, 5), 0.0)
    assert found.shape == (5, 5)
    assert found.sum(1).tolist() == [0, 5, 5, 0, 0]


def test_signals_are_those_of_the_stock_model(benchmark):
    """Against the attention weights that the model itself returns, without and with the class token."""
    module = benchmark("real_encoder_features")
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_attention_heads=2, num_hidden_layers=12, image_size=56, patch_size=14)
    config._attn_implementation = "eager"
    model = Dinov2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # else all attention is uniform
            parameter.add_(torch.randn_like(parameter) * 0.3)
    plane = torch.rand(56, 56)
    found = module.encode(model, plane)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (plane[None] - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        stock = model(pixels[None], output_attentions=True, output_hidden_states=True)
    assert found["tokens"] == pytest.approx(stock.last_hidden_state[0, 1:].numpy(), abs=5e-3)
    for place, block in enumerate(module.BLOCKS):
        weights = stock.attentions[block][0, :, 1:, 1:].double()
        weights = weights / weights.sum(-1, keepdim=True)
        assert found["received"][place] == pytest.approx(weights.sum(1).mean(0).numpy(), rel=1e-3)
    for block in range(12):
        expected = 16 * stock.attentions[block][0, :, 0, 1:].mean(0)
        assert found["class"][block] == pytest.approx(expected.numpy(), rel=1e-3)
    assert found["received"].std() > 0.1
    assert found["norms"] == pytest.approx(stock.hidden_states[-1][0, 1:].norm(dim=-1).numpy(), rel=1e-3)


def test_area_under_the_curve_against_pairs(benchmark):
    module = benchmark("real_encoder_measures")
    random = np.random.default_rng(3)
    scores = random.integers(0, 6, size=(20, 2)).astype(float)
    present = random.random((20, 2)) < 0.4
    groups = np.repeat([7, 3, 9, 1, 4], 4)
    areas = []
    for organ in range(2):
        pairs = [(a, b) for a in range(20) for b in range(20) if present[a, organ] and not present[b, organ]]
        won = [
            1.0 if scores[a, organ] > scores[b, organ] else 0.5 * (scores[a, organ] == scores[b, organ])
            for a, b in pairs
        ]
        areas.append(math.fsum(map(float, won)) / len(won))
    value, low, high = module.mean_area(scores, present, groups)
    assert value == pytest.approx(sum(areas) / 2)
    assert low < value < high


def test_intervals_are_those_of_drawn_groups(benchmark, monkeypatch):
    """With three samples: every slice of a group comes as often as the group was drawn."""
    module = benchmark("real_encoder_measures")
    drawn = np.array([[2.0, 0, 1], [1, 1, 1], [0, 3, 0]])
    monkeypatch.setattr(module, "resampled", lambda groups, seed=0: drawn)
    groups = np.array([5, 5, 1, 1, 8, 8])  # in rising order: 1, 5, 8
    kept, every = np.array([1.0, 2, 3, 4, 5, 6]), np.array([10.0, 20, 10, 10, 20, 10])
    samples = [(2 * 7 + 11) / (2 * 20 + 30), 21 / 80, 3 / 30]
    assert module.ratio(kept, every, groups) == pytest.approx([21 / 80, *np.percentile(samples, [2.5, 97.5])])
    scores, present = np.array([[1.0], [4], [2], [3], [5], [0]]), np.array([[True], [False]] * 3)
    by_hand = []
    for weights in drawn:
        rows = [row for row, group in enumerate(groups) for _ in range(int(weights[[1, 5, 8].index(group)]))]
        pairs = [
            (scores[a, 0], scores[b, 0])
            for a, b in itertools.product(rows, rows)
            if present[a, 0] and not present[b, 0]
        ]
        by_hand.append(np.mean([a > b for a, b in pairs]))
    expected = np.percentile(by_hand, [2.5, 97.5])
    assert module.mean_area(scores, present, groups)[1:] == pytest.approx(expected)


def test_the_probe_is_at_its_optimum(benchmark):
    """The gradient of the penalized likelihood, computed in float64 without torch, vanishes."""
    module = benchmark("real_encoder_measures")
    random = np.random.default_rng(0)
    organs = random.integers(0, 3, 300)
    tokens = random.standard_normal((300, 4)) + 1.5 * np.eye(3, 4)[organs]
    probe = module.Probe(torch.tensor(tokens, dtype=torch.float32), torch.tensor(organs), 3)
    inputs = (tokens - tokens.mean(0)) / tokens.std(0, ddof=1)
    weight, bias = (one.detach().double().numpy() for one in (probe.weight, probe.bias))
    logits = inputs @ weight.T + bias
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    off = (chances - np.eye(3)[organs]) / 300
    assert np.abs(off.T @ inputs + 2 * module.PENALTY * weight).max() < 1e-3
    assert np.abs(off.sum(0)).max() < 1e-3
    assert np.abs(weight).max() > 0.3
    assert probe(torch.tensor(tokens)).detach().numpy() == pytest.approx(chances, abs=1e-4)


def test_folds_hold_whole_groups(benchmark):
    fold = benchmark("real_encoder_measures").fold_of(torch.tensor([4, 4, 0, 2, 2, 6, 8, 10]))
    assert fold.tolist() == [2, 2, 0, 1, 1, 3, 4, 0]


def test_highest_among_valid_ones(benchmark):
    score = torch.tensor([[1.0, 5, 5, 9, 0]])
    valid = torch.tensor([[True, True, True, False, True]])
    highest = benchmark("real_encoder_selectors").highest
    assert highest(score, 2, valid).tolist() == [[False, True, True, False, False]]
    assert highest(score, 5, valid).tolist() == valid.tolist()


def test_what_random_tokens_keep_on_average(benchmark):
    """Against draws: 3 of 10 tokens, 8 and 2 of which are body."""
    organs = torch.tensor([[1, 1, 0, 0, 2, 0, 0, 0, 0, 1], [0, 3, 0, 0, 0, 0, 0, 0, 0, 0]])
    body = torch.tensor([[True] * 8 + [False] * 2, [True, True] + [False] * 8])
    found = benchmark("real_encoder").expected_shares(organs, body, 0.3)
    assert found["against_random"] == pytest.approx(0.3)
    random, kept = np.random.default_rng(0), 0
    for _ in range(4000):
        for row, inside in zip(organs, body, strict=True):
            places = inside.nonzero().flatten().numpy()
            chosen = random.permutation(places)[:3]
            kept += int((row[chosen] > 0).sum())
    assert found["against_random_in_body"] == pytest.approx(kept / 4000 / 5, rel=0.03)


def facility_oracle(similarity, weight, count):
    """Every set that has one token more, and the one with the largest sum."""
    chosen: list[int] = []
    for _ in range(count):
        rest = [j for j in range(len(weight)) if j not in chosen]
        value = {
            j: math.fsum(w * max(similarity[i][c] for c in [*chosen, j]) for i, w in enumerate(weight)) for j in rest
        }
        chosen.append(max(rest, key=lambda j: (value[j], -j)))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_facility_location_against_the_loop(benchmark, seed):
    random = np.random.default_rng(seed)
    half = random.random((9, 9))
    similarity = (half + half.T) / 2
    np.fill_diagonal(similarity, 1)
    weight = random.random(9)
    found = benchmark("real_encoder_selectors").facility_location(similarity, weight, 6)
    assert found == facility_oracle(similarity.tolist(), weight.tolist(), 6)


@pytest.fixture
def features(benchmark):
    """Three slices of random tokens, of which the first row is no body."""
    module, grid = benchmark("real_encoder_selectors"), benchmark("real_encoder_features").GRID
    generator = torch.Generator().manual_seed(0)
    tokens = grid * grid

    def drawn(*shape):
        return torch.rand(3, *shape, generator=generator)

    body = torch.ones(3, tokens, dtype=torch.bool)
    body[:, :grid] = False
    return module.Features(
        tokens=drawn(tokens, 8).half() - 0.5,
        keys=drawn(tokens, 4).half(),
        norms=drawn(tokens),
        received=drawn(4, tokens),
        class_=drawn(12, tokens),
        organs=torch.zeros(3, tokens, dtype=torch.long),
        body=body,
        intensity=drawn(tokens),
        group=torch.arange(3),
        anchors=torch.tensor([True, False, True]),
    )


def test_every_selector_keeps_its_number(benchmark, features):
    """28 of 1,369 tokens; fewer cells where tokens are pooled; the volume's number where slices share one."""
    selectors = benchmark("real_encoder_selectors").SELECTORS
    for name, select in selectors.items():
        keep, values = select(features, 0.0205)
        kept = keep.sum(1).tolist()
        if name == "average_pooling":
            assert kept == [25] * 3
        elif name in ("nucleus, one for the volume", "medpruner_released", "rare_tokens"):
            assert sum(kept) == 84
        else:
            assert kept == [28] * 3, name
        if name.startswith("body"):
            assert not (keep & ~features.body).any(), name
        assert values is None or values.shape == features.tokens.shape
    released = selectors["medpruner_released"](features, 0.0205)[0]
    assert released.sum(1).tolist()[1] == 1


def test_received_attention_is_that_of_the_last_block(benchmark, features):
    keep, _ = benchmark("real_encoder_selectors").SELECTORS["nucleus"](features, 0.0205)
    for mask, received in zip(keep, features.received, strict=True):
        assert set(mask.nonzero().flatten().tolist()) == set(received[3].topk(28).indices.tolist())
