# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Aggregation of per-item values at every level (micro, macro, type, subtype), with bootstrap intervals."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics.measures import Measure
from monai_medpruner.metrics.predictions import Prediction

__all__ = ["MACRO", "MICRO", "LevelKey", "Levels", "interval"]

#: (level, type, subtype): level is "micro", "macro", "type" or "subtype"; type and subtype may be empty
LevelKey = tuple[str, str, str]
MICRO: LevelKey = ("micro", "", "")
MACRO: LevelKey = ("macro", "", "")

_CHUNK = 64


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled values.

    Args:
        values: (resamples,). Draws without an item that counts are NaN and are ignored.

    Returns:
        Lower and upper bound; NaN if no values remain.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


@dataclass(frozen=True)
class Levels:
    """The sets of items that get values, and how the values of types and of all items are computed.

    Args:
        items: the predictions.
        type_score: "items" if the value of a type is computed over its items, "subtypes" if it is the unweighted mean
            over its subtypes.

    Raises:
        SettingsError: ``type_score`` is neither of them.
    """

    items: Sequence[Prediction]
    type_score: str = "items"

    def __post_init__(self) -> None:
        if self.type_score not in ("items", "subtypes"):
            raise SettingsError(f"type_score must be 'items' or 'subtypes', got {self.type_score!r}")

    @cached_property
    def subtypes(self) -> list[tuple[str, str]]:
        """All (type, subtype) pairs, sorted; these are the smallest sets."""
        return sorted({(item.type, item.subtype) for item in self.items})

    @cached_property
    def types(self) -> list[str]:
        """All types, sorted."""
        return sorted({item.type for item in self.items})

    @cached_property
    def sets(self) -> dict[LevelKey, np.ndarray]:
        """Boolean mask over all items for each set; "macro" has no mask of its own."""
        types = np.array([item.type for item in self.items])
        subtypes = np.array([item.subtype for item in self.items])
        return {
            MICRO: np.ones(len(self.items), dtype=bool),
            **{("type", name, ""): types == name for name in self.types},
            **{("subtype", *pair): (types == pair[0]) & (subtypes == pair[1]) for pair in self.subtypes},
        }

    def table(self, measure: Measure) -> np.ndarray:
        """The rows of a measure, each followed by a 1, (items, width + 1); zeros for items that do not count."""
        rows = [measure.row(item) for item in self.items]
        width = next((len(row) for row in rows if row is not None), 1)
        return np.array([[0.0] * (width + 1) if row is None else [*row, 1.0] for row in rows])

    def values(self, measure: Measure, table: np.ndarray) -> dict[LevelKey, np.ndarray]:
        """Return one measure at every level. Sums are exact, so the order of items does not matter.

        Returns:
            Arrays of one value, in percent; NaN if no item counts.
        """
        sums = {
            key: np.array([[math.fsum(column) for column in table[mask].T.tolist()]]) for key, mask in self.sets.items()
        }
        return self.with_means({key: measure.values(one) for key, one in sums.items()})

    def with_means(self, values: dict[LevelKey, np.ndarray]) -> dict[LevelKey, np.ndarray]:
        """Return the values of all sets together with the unweighted means, "macro" among them."""
        means = dict(values)
        if self.type_score == "subtypes":
            for name in self.types:
                parts = [one for (level, type_, _), one in values.items() if level == "subtype" and type_ == name]
                means["type", name, ""] = _mean(parts)
        means[MACRO] = _mean([means["type", name, ""] for name in self.types])
        return means

    def counts(self, table: np.ndarray) -> dict[LevelKey, int]:
        """Number of items that count at each level."""
        counts = {key: int(table[mask, -1].sum()) for key, mask in self.sets.items()}
        return {**counts, MACRO: counts[MICRO]}

    def majority_baselines(self) -> dict[LevelKey, np.ndarray]:
        """Accuracy in percent of always answering with the most frequent letter of each set; arrays of one value."""
        values = {}
        for key, mask in self.sets.items():
            letters = [item.reference_choice for item, inside in zip(self.items, mask, strict=True) if inside]
            frequent = Counter(letter for letter in letters if letter is not None)
            share = max(frequent.values()) / frequent.total() if frequent else math.nan
            values[key] = np.array([100 * share])
        return self.with_means(values)

    def resampled(
        self, measures: Sequence[Measure], tables: Sequence[np.ndarray], resamples: int, seed: int
    ) -> list[dict[LevelKey, np.ndarray]]:
        """Return every measure at every level on bootstrap draws of all items, the same draws for every measure.

        Args:
            measures: the measures.
            tables: the table of each measure, see :meth:`table`.
            resamples: number of draws, at least 1.
            seed: random seed of the draws; two runs with the same seed are paired.

        Returns:
            Per measure, (resamples,) values in percent at each level; NaN for draws without an item that counts.

        Raises:
            SettingsError: ``resamples`` is less than 1.
        """
        if resamples < 1:
            raise SettingsError(f"resamples must be at least 1, got {resamples}")
        ends = np.cumsum([table.shape[1] for table in tables])[:-1]
        chunks: list[list[dict[LevelKey, np.ndarray]]] = [[] for _ in measures]
        for sums in self._drawn_sums(np.hstack(tables), resamples, seed):
            parts = {key: np.split(one, ends, axis=1) for key, one in sums.items()}
            for number, measure in enumerate(measures):
                values = {key: measure.values(part[number]) for key, part in parts.items()}
                chunks[number].append(self.with_means(values))
        return [{key: np.concatenate([part[key] for part in parts]) for key in parts[0]} for parts in chunks]

    def _drawn_sums(self, table: np.ndarray, resamples: int, seed: int) -> Iterator[dict[LevelKey, np.ndarray]]:
        """Yield summed rows of every set, (up to 64 draws, columns), in chunks because there may be 30,000 items."""
        random, total = np.random.default_rng(seed), len(self.items)
        leaves = {key: np.flatnonzero(mask) for key, mask in self.sets.items() if key[0] == "subtype"}
        for start in range(0, resamples, _CHUNK):
            picked = random.integers(0, total, (min(_CHUNK, resamples - start), total))
            drawn = np.stack([np.bincount(row, minlength=total) for row in picked]).astype(np.float64)
            sums = {key: drawn[:, members] @ table[members] for key, members in leaves.items()}
            for name in self.types:
                sums["type", name, ""] = sum(one for key, one in sums.items() if key[:2] == ("subtype", name))
            yield {MICRO: sum(sums[key] for key in leaves), **sums}


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    """Unweighted mean of the values that are not NaN."""
    with warnings.catch_warnings():
        # nanmean warns if all values are NaN; NaN is the correct result
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(np.stack(values), axis=0))
