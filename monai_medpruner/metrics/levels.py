# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""From numbers per item to values at every level (micro, macro, type, subtype), with bootstrap intervals."""

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

#: level ("micro", "macro", "type", "subtype"), type and subtype, empty where they don't apply
LevelKey = tuple[str, str, str]
MICRO: LevelKey = ("micro", "", "")
MACRO: LevelKey = ("macro", "", "")

_CHUNK = 64


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of resampled values.

    Args:
        values: (resamples,); NaN where a draw held no item that counts, which is left out.

    Returns:
        Lower and upper end; NaN where nothing is left.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


@dataclass(frozen=True)
class Levels:
    """The sets of items that have values, and how the values of types and of all are made.

    Args:
        items: the predictions.
        type_score: "items" where a type's value is over its items, "subtypes" where it is the unweighted mean over its
            subtypes.

    Raises:
        SettingsError: ``type_score`` is neither.
    """

    items: Sequence[Prediction]
    type_score: str = "items"

    def __post_init__(self) -> None:
        if self.type_score not in ("items", "subtypes"):
            raise SettingsError(f"a type's score is over 'items' or 'subtypes', got {self.type_score!r}")

    @cached_property
    def subtypes(self) -> list[tuple[str, str]]:
        """Every (type, subtype), sorted: the smallest sets."""
        return sorted({(item.type, item.subtype) for item in self.items})

    @cached_property
    def types(self) -> list[str]:
        """Every type, sorted."""
        return sorted({item.type for item in self.items})

    @cached_property
    def sets(self) -> dict[LevelKey, np.ndarray]:
        """Which items (mask over all) each set holds; "macro" has none of its own."""
        types = np.array([item.type for item in self.items])
        subtypes = np.array([item.subtype for item in self.items])
        return {
            MICRO: np.ones(len(self.items), dtype=bool),
            **{("type", name, ""): types == name for name in self.types},
            **{("subtype", *pair): (types == pair[0]) & (subtypes == pair[1]) for pair in self.subtypes},
        }

    def table(self, measure: Measure) -> np.ndarray:
        """A measure's rows with a 1 at their end, (items, width + 1); zeros for items that don't count."""
        rows = [measure.row(item) for item in self.items]
        width = next((len(row) for row in rows if row is not None), 1)
        return np.array([[0.0] * (width + 1) if row is None else [*row, 1.0] for row in rows])

    def values(self, measure: Measure, table: np.ndarray) -> dict[LevelKey, np.ndarray]:
        """One measure at every level, from exact sums: the order of items has no say.

        Returns:
            Arrays of one value, in percent; NaN where no item counts.
        """
        sums = {
            key: np.array([[math.fsum(column) for column in table[mask].T.tolist()]]) for key, mask in self.sets.items()
        }
        return self.with_means({key: measure.values(one) for key, one in sums.items()})

    def with_means(self, values: dict[LevelKey, np.ndarray]) -> dict[LevelKey, np.ndarray]:
        """Values of all sets -> the same with the unweighted means in their places, "macro" among them."""
        means = dict(values)
        if self.type_score == "subtypes":
            for name in self.types:
                parts = [one for (level, type_, _), one in values.items() if level == "subtype" and type_ == name]
                means["type", name, ""] = _mean(parts)
        means[MACRO] = _mean([means["type", name, ""] for name in self.types])
        return means

    def counts(self, table: np.ndarray) -> dict[LevelKey, int]:
        """How many items count at each level."""
        counts = {key: int(table[mask, -1].sum()) for key, mask in self.sets.items()}
        return {**counts, MACRO: counts[MICRO]}

    def majority_baselines(self) -> dict[LevelKey, np.ndarray]:
        """Accuracy, in percent, of always answering the most frequent letter of each set; arrays of one value."""
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
        """Every measure at every level on bootstrap draws of all items, the same draws for each.

        Args:
            measures: the measures.
            tables: their tables.
            resamples: how many draws, at least 1.
            seed: of the draws; the same for two runs pairs them.

        Returns:
            Per measure, (resamples,) values in percent at each level; NaN where a draw held no item that counts.

        Raises:
            SettingsError: fewer than 1 resample.
        """
        if resamples < 1:
            raise SettingsError(f"the bootstrap needs at least 1 resample, got {resamples}")
        ends = np.cumsum([table.shape[1] for table in tables])[:-1]
        chunks: list[list[dict[LevelKey, np.ndarray]]] = [[] for _ in measures]
        for sums in self._drawn_sums(np.hstack(tables), resamples, seed):
            parts = {key: np.split(one, ends, axis=1) for key, one in sums.items()}
            for number, measure in enumerate(measures):
                values = {key: measure.values(part[number]) for key, part in parts.items()}
                chunks[number].append(self.with_means(values))
        return [{key: np.concatenate([part[key] for part in parts]) for key in parts[0]} for parts in chunks]

    def _drawn_sums(self, table: np.ndarray, resamples: int, seed: int) -> Iterator[dict[LevelKey, np.ndarray]]:
        """Summed rows of every set, (up to 64 draws, columns): few at a time, since there may be 30,000 items."""
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
    """The unweighted mean of those that have a value."""
    with warnings.catch_warnings():
        # where all are absent, NaN is the answer
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(np.stack(values), axis=0))
