# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Published pruners written from their papers, one slice and one token at a time in float64."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from pruner_oracles import cosine, merging_oracle


def shares(length: int, keep_ratio: float, contextual_ratio: float) -> tuple[int, int]:
    """Numbers of selected and contextual tokens; ratios are the decimals that they are written as."""
    kept = max(math.floor(Fraction(str(keep_ratio)) * length), 1)
    if contextual_ratio == 0:
        return kept, 0
    contextual = min(max(math.floor(Fraction(str(contextual_ratio)) * kept), 1), kept - 1)
    return kept - contextual, contextual


def falling(values: list[float], among: list[int]) -> list[int]:
    """Places by falling value; Python's sort keeps equals in order."""
    return sorted(among, key=lambda j: -values[j])


def visionzip_oracle(
    tokens: np.ndarray, keys: np.ndarray, attention: list[float], selected: int, contextual: int
) -> tuple[np.ndarray, list[int], list[int], list[int], float]:
    """Tokens, dominant and contextual places, merged_into, and the margin of the closest choice of a target."""
    dominant = sorted(falling(attention, list(range(len(tokens))))[:selected])
    keep = [j in dominant for j in range(len(tokens))]
    # half a token more, so that the product with the number of tokens is not below a whole number
    ratio = (contextual + 0.5) / len(tokens) if contextual else 0
    merged, targets, merged_into, margin = merging_oracle(tokens, keys, keep, ratio)
    return merged, dominant, targets, merged_into, margin


def hiprune_oracle(
    middle: list[float], last: list[float], grid: tuple[int, int], count: int, object_share: float
) -> list[int]:
    """Anchors, then buffers, then registers, until there are enough."""
    rows, columns = grid
    every = list(range(rows * columns))
    anchors = falling(middle, every)[: round(object_share * count / 5)]
    buffers = []
    for anchor in anchors:
        row, column = divmod(anchor, columns)
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= r < rows and 0 <= c < columns:
                buffers.append(r * columns + c)
    buffers = falling(middle, sorted(set(buffers) - set(anchors)))
    registers = falling(last, [j for j in every if j not in anchors and j not in buffers])
    return sorted([*anchors, *buffers, *registers][:count])


def divprune_oracle(tokens: np.ndarray, count: int) -> tuple[list[int], float]:
    """The greedy solution of max-min diversity, and the margin of its closest choice; exact copies tie."""
    every = list(range(len(tokens)))
    distance = [[1 - cosine(a, b) for b in tokens] for a in tokens]
    chosen: list[int] = []
    margin = math.inf
    while len(chosen) < count:
        rest = [j for j in every if j not in chosen]
        nearest = {j: min([distance[j][i] for i in (chosen or every) if i != j], default=math.inf) for j in rest}
        best = max(rest, key=lambda j: (nearest[j], -j))
        copies = [j for j in rest if np.array_equal(tokens[j], tokens[best])]
        margin = min([margin, *(nearest[best] - nearest[j] for j in rest if j not in copies)])
        chosen.append(min(copies))
    return sorted(chosen), margin


def cdpruner_oracle(tokens: np.ndarray, question: np.ndarray, count: int) -> tuple[list[int], float]:
    """Token after token, the one with the largest determinant of the kernel, and the margin of the closest choice.

    The margin is that of the factor by which a token multiplies the determinant.
    """
    relevance = [math.fsum(cosine(token, word) for word in question) / len(question) for token in tokens]
    lowest, highest = min(relevance), max(relevance)
    relevance = [min((one - lowest + 1e-6) / (highest - lowest), 1) if highest > lowest else 1.0 for one in relevance]
    weighted = list(zip(relevance, tokens, strict=True))
    kernel = np.array([[r * s * cosine(a, b) for s, b in weighted] for r, a in weighted])
    chosen: list[int] = []
    before, margin = 1.0, math.inf
    while len(chosen) < count:
        rest = [j for j in range(len(tokens)) if j not in chosen]
        volumes = {j: np.linalg.det(kernel[np.ix_([*chosen, j], [*chosen, j])]) for j in rest}
        first, *others = sorted(rest, key=lambda j: -volumes[j])
        margin = min([margin, *((volumes[first] - volumes[j]) / before for j in others[:1])])
        before = volumes[first]
        chosen.append(first)
    return sorted(chosen), margin
