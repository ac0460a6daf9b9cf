# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Written from the method, one slice at a time in float64, knowing nothing of the package."""

from __future__ import annotations

import math

import numpy as np

# a cumulative mass this close below tau has reached it: the masses of equal tokens do not sum exactly
REACHED = 1e-9


def attention_received_oracle(query: np.ndarray, key: np.ndarray, scale: float | None = None) -> np.ndarray:
    """Eq. 3 times M for ``(heads, M, d)``, the attention matrix written out."""
    heads, length, width = query.shape
    scale = 1 / math.sqrt(width) if scale is None else scale
    attention = np.zeros((heads, length, length))
    for head in range(heads):
        for i in range(length):
            logits = [scale * math.fsum(query[head, i] * key[head, j]) for j in range(length)]
            weights = [math.exp(logit - max(logits)) for logit in logits]
            attention[head, i] = np.array(weights) / math.fsum(weights)
    averaged = attention.sum(0) / heads
    return averaged.sum(0) / length * length


def nucleus_masses(scores: list[float], temperature: float) -> list[float]:
    """Eq. 4."""
    weights = [math.exp((score - max(scores)) / temperature) for score in scores]
    return [weight / math.fsum(weights) for weight in weights]


def nucleus_oracle(scores: list[float], tau: float, temperature: float) -> list[int]:
    """Eq. 5: the kept indices, rising."""
    if tau == 1:
        return list(range(len(scores)))
    masses = nucleus_masses(scores, temperature)
    kept: list[int] = []
    for j in sorted(range(len(scores)), key=lambda j: -masses[j]):  # Python's sort keeps equals in order
        kept.append(j)
        if math.fsum(masses[i] for i in kept) >= tau - REACHED:
            break
    return sorted(kept)


def nuclei_oracle(
    slices: list[list[float]],
    tau: float,
    temperature: float,
    max_importance: float | None = None,
    least: int = 1,
    scope: str = "slice",
    patches: int | None = None,
) -> list[list[int]]:
    """The kept indices of each slice, rising; with patches per token, of the literal attention (the paper's scale)."""
    scores = []
    for one in slices:
        clipped = [score if max_importance is None else min(score, max_importance) for score in one]
        scores.append([score if patches is None else score / (len(one) * patches) for score in clipped])
    if scope == "slice":
        chosen = [nucleus_oracle(one, tau, temperature) for one in scores]
    else:
        together = nucleus_oracle([score for one in scores for score in one], tau, temperature)
        chosen, start = [], 0
        for one in scores:
            chosen.append([j - start for j in together if start <= j < start + len(one)])
            start += len(one)
    for one, kept in zip(scores, chosen, strict=True):
        if len(kept) < least:
            highest = sorted(range(len(one)), key=lambda j: -one[j])
            kept += [j for j in highest[:least] if j not in kept]
    return [sorted(kept) for kept in chosen]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    norms = math.sqrt(math.fsum(a * a)) * math.sqrt(math.fsum(b * b))
    return math.fsum(a * b) / norms if norms > 0 else 0.0


def merging_targets(length: int, remaining: list[int], ratio: float) -> list[int]:
    """The remaining tokens number 0, s, 2s, ..., the first n of them."""
    if ratio == 0 or not remaining:
        return []
    wanted = max(math.floor(ratio * length), 1)
    if len(remaining) < wanted:
        return remaining
    stride = len(remaining) // wanted
    return [remaining[number * stride] for number in range(wanted)]


def merging_oracle(
    tokens: np.ndarray, keys: np.ndarray, keep: list[bool], ratio: float
) -> tuple[np.ndarray, list[int], list[int], float]:
    """Merge one slice: tokens, contextual indices, merged_into, margin of the closest choice (inf: no choice)."""
    length = len(keep)
    remaining = [j for j in range(length) if not keep[j]]
    targets = merging_targets(length, remaining, ratio)
    merged_into = [j if keep[j] or j in targets else -1 for j in range(length)]
    assigned: dict[int, list[int]] = {target: [] for target in targets}
    closest = math.inf
    for j in remaining:
        if j in targets or not targets:
            continue
        similarities = [cosine(keys[j], keys[target]) for target in targets]
        best = similarities.index(max(similarities))
        merged_into[j] = targets[best]
        assigned[targets[best]].append(j)
        # exact ties are no close call: the first one wins
        gaps = [similarities[best] - other for other in similarities if other != similarities[best]]
        closest = min([closest, *gaps])
    merged = tokens.astype(np.float64)
    for target, members in assigned.items():
        for channel in range(tokens.shape[1]):
            if members:
                total = math.fsum(float(tokens[j, channel]) for j in members)
                merged[target, channel] = float(tokens[target, channel]) + total / len(members)
    return merged, targets, merged_into, closest
