# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Reference implementations of the text metrics, without NLTK and without the package's helpers."""

from __future__ import annotations

import math
import re
from itertools import pairwise


def grams(tokens, order):
    return [tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1)]


def clipped_matches(hypothesis, reference, order):
    left, matched = grams(reference, order), 0
    for gram in grams(hypothesis, order):
        if gram in left:
            left.remove(gram)
            matched += 1
    return matched


def bleu(pairs, order, smoothing):
    """BLEU of one or several (hypothesis, reference) token lists, counts summed."""
    logs = []
    for n in range(1, order + 1):
        matched = sum(clipped_matches(h, r, n) for h, r in pairs)
        total = sum(max(1, len(h) - n + 1) for h, _ in pairs)
        if n == 1 and matched == 0:
            return 0.0
        if matched == 0:
            matched = 0.1 if smoothing == "method1" else 2.2250738585072014e-308 * total
        logs.append(math.log(matched / total))
    c, r = sum(len(h) for h, _ in pairs), sum(len(r) for _, r in pairs)
    return (1.0 if c > r else math.exp(1 - r / c)) * math.exp(sum(logs) / order)


def lcs_length(a, b):
    """Length of the longest common subsequence, by recursion."""
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return lcs_length(a[:-1], b[:-1]) + 1
    return max(lcs_length(a[:-1], b), lcs_length(a, b[:-1]))


def f_score(overlap, hypothesis, reference, epsilon=0.0):
    if overlap == 0:
        return 0.0
    p, r = overlap / hypothesis, overlap / reference
    return 2 * p * r / (p + r + epsilon)


def rouge_score(prediction, reference, variant):
    h, r = (re.sub("[^a-z0-9]", " ", text.lower()).split() for text in (prediction, reference))
    overlap = clipped_matches(h, r, 1) if variant == "1" else lcs_length(h, r)
    return f_score(overlap, len(h), len(r))


def rouge_1_of_sets(prediction, reference):
    h, r = (set(text.lower().replace(".", " ").split()) for text in (prediction, reference))
    return f_score(len(h & r), len(h), len(r), 1e-8)


def meteor_exact(hypothesis, reference):
    """METEOR of lower-case words without common stems, each word at most once in each text."""
    matched = [(i, reference.index(word)) for i, word in enumerate(hypothesis) if word in reference]
    if not matched:
        return 0.0
    p, r = len(matched) / len(hypothesis), len(matched) / len(reference)
    chunks = 1 + sum((b[0] - a[0], b[1] - a[1]) != (1, 1) for a, b in pairwise(matched))
    return (10 * p * r / (r + 9 * p)) * (1 - 0.5 * (chunks / len(matched)) ** 3)
