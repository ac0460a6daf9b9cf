# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Shares of organ tokens kept, and a linear probe that tells the organs of a slice, with clustered intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

RESAMPLES = 1000
FOLDS = 5
TRAINING_TOKENS = 8_000  # at most, of a fold
PENALTY = 1e-3  # of the squared weights
STEPS = 50


def resampled(groups: Sequence[int], seed: int = 0) -> np.ndarray:
    """How often each group is drawn in each bootstrap sample, ``(RESAMPLES, G)``, groups in rising order."""
    count = len(set(groups))
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    weights = np.zeros((RESAMPLES, count))
    np.add.at(weights, (np.arange(RESAMPLES)[:, None], drawn), 1)
    return weights


def by_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums of rows ``(N, ...)`` over each group, ``(G, ...)``, groups in rising order."""
    names, place = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, place, values)
    return sums


def interval(samples: np.ndarray) -> list[float]:
    """The 2.5th and the 97.5th percentile, without samples that are undefined."""
    return [float(one) for one in np.nanpercentile(samples, [2.5, 97.5])]


def ratio(kept: np.ndarray, every: np.ndarray, groups: np.ndarray) -> list[float]:
    """Sum of ``kept`` over sum of ``every``, one number a slice each, with its 95 % interval over groups."""
    over, under = by_group(kept, groups), by_group(every, groups)
    weights = resampled(groups.tolist())
    with np.errstate(invalid="ignore"):
        samples = (weights @ over) / (weights @ under)
    return [float(over.sum() / under.sum()), *interval(samples)]


def mean_area(scores: np.ndarray, present: np.ndarray, groups: np.ndarray) -> list[float]:
    """Mean area under the ROC curve over organs, with its 95 % interval over groups of slices.

    Args:
        scores: ``(N, K)`` of N slices and K organs.
        present: bool ``(N, K)``; each organ is present in some slices and absent in others.
        groups: ``(N,)``.
    """
    weights = resampled(groups.tolist())
    points, samples = [], []
    for organ in range(scores.shape[1]):
        has, score = present[:, organ], scores[:, organ]
        above = (score[:, None] > score) + 0.5 * (score[:, None] == score)
        pairs = has[:, None] & ~has
        won = by_group(by_group(above * pairs, groups).T, groups).T
        all_ = by_group(by_group(pairs.astype(float), groups).T, groups).T
        points.append(won.sum() / all_.sum())
        with np.errstate(invalid="ignore"):
            samples.append(_pairs(weights, won) / _pairs(weights, all_))
    known = np.isfinite(samples)  # a sample may hold no slice with an organ, or none without it
    sums = np.where(known, samples, 0).sum(0)
    means = np.divide(sums, known.sum(0), out=np.full(len(sums), np.nan), where=known.any(0))
    return [float(np.mean(points)), *interval(means)]


def _pairs(weights: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.einsum("bi,ij,bj->b", weights, table, weights, optimize=True)


class Probe:
    """Multinomial logistic regression on standardized tokens, fitted by L-BFGS; class 0 is no organ.

    Args:
        tokens: ``(N, C)`` of the training slices.
        organs: int64 ``(N,)``, consecutive classes from 0 on.
        classes: number of classes.
        seed: of the choice of training tokens, where there are more than :data:`TRAINING_TOKENS`.
    """

    def __init__(self, tokens: torch.Tensor, organs: torch.Tensor, classes: int, seed: int = 0) -> None:
        drawn = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))[:TRAINING_TOKENS]
        tokens, organs = tokens[drawn].float(), organs[drawn]
        self.mean, self.scale = tokens.mean(0), tokens.std(0).clamp(min=1e-6)
        inputs = (tokens - self.mean) / self.scale
        self.weight = torch.zeros(classes, inputs.shape[1], requires_grad=True)
        self.bias = torch.zeros(classes, requires_grad=True)
        solver = torch.optim.LBFGS([self.weight, self.bias], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            solver.zero_grad()
            value = cross_entropy(inputs @ self.weight.T + self.bias, organs) + PENALTY * self.weight.square().sum()
            value.backward()
            return value

        solver.step(loss)

    @torch.no_grad()
    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Probabilities ``(..., classes)`` of tokens ``(..., C)``."""
        return (((tokens.float() - self.mean) / self.scale) @ self.weight.T + self.bias).softmax(-1)


def fold_of(groups: torch.Tensor) -> torch.Tensor:
    """Fold of each slice: its group's number among all groups, modulo :data:`FOLDS`."""
    return groups.unique(return_inverse=True)[1] % FOLDS
