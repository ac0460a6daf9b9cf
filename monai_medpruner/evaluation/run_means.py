# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Retention and stage times of a run as scalars, which MONAI's TensorBoard and MLflow handlers write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

__all__ = ["RunMeans"]

_PARTS = ("slices", "tokens")


class RunMeans:
    """Retention, as a ratio of sums over studies, and mean seconds of the studies of a run so far."""

    def __init__(self) -> None:
        self._volumes: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()

    def add(self, study: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
        """Add a question about a study, or all that was asked about it.

        Args:
            study: summary of its record, or a result line; counted once per volume.
            seconds: of the stages.
        """
        if study["volume_id"] not in self._volumes:
            self._volumes.add(study["volume_id"])
            for name, of in (("slices", "total"), ("tokens", "unpruned")):
                self._counts.update({f"{name}_all": study[name][of], f"{name}_kept": study[name]["kept"]})
        self._seconds.update(seconds)

    def scalars(self, prefix: str = "") -> dict[str, float]:
        """Return ``retention_slices`` and ``retention_tokens``, fractions, and ``seconds_STAGE``, mean per study.

        Args:
            prefix: of each name.
        """
        if not self._volumes:
            return {}
        kept = {f"retention_{name}": self._counts[f"{name}_kept"] / self._counts[f"{name}_all"] for name in _PARTS}
        spent = {f"seconds_{stage}": total / len(self._volumes) for stage, total in self._seconds.items()}
        return {f"{prefix}{name}": value for name, value in {**kept, **spent}.items()}
