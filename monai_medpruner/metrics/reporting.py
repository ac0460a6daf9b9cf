# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The report of an evaluation run: scores, retention, times, and counts of items and volumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_medpruner.metrics.scoring import DEFAULT_RESAMPLES, score

__all__ = ["run_report"]

_PARTS = ("slices", "tokens_per_kept_slice", "overall")


def run_report(
    lines: Sequence[Mapping[str, Any]],
    protocol: str,
    wordnet: str | Path | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the content of ``metrics.json`` from the lines of ``predictions.jsonl``.

    Args:
        lines: lines as read by :func:`~monai_medpruner.metrics.score`. Lines of items without an error also have
            ``volume_id``, ``slices`` {``total``, ``kept``}, ``tokens`` {``unpruned``, ``kept``}, ``seconds`` per stage,
            ``source``, ``plane`` and ``order``.
        protocol: as in ``score``.
        wordnet: as in ``score``.
        resamples: as in ``score``.
        seed: as in ``score``.

    Returns:
        ``accuracy`` in percent under the headline rule; ``retention`` of slices, of tokens per kept slice, and overall,
        as fractions, each a ratio of sums over the volumes; numbers of ``items``, ``failed`` items and ``truncated``
        answers; ``retention_interval``, the 95 % interval over bootstrap draws of volumes; ``errors``, the number of
        items per error; ``volumes``, their number; ``slices``, counts of sources, planes and orders, and the min, mean
        and max of total and kept slices; ``seconds`` per stage; then the result of ``score`` without ``per_item``.

    Raises:
        SettingsError: as in ``score``.
    """
    scores = score(lines, protocol, wordnet, resamples, seed)
    scores.pop("per_item")
    answered = [line for line in lines if line.get("status") == "ok"]
    volumes = list({line["volume_id"]: line for line in answered}.values())
    retention, interval = _retention(volumes, resamples, seed)
    return {
        "accuracy": scores["accuracy"],
        "retention": retention,
        "items": scores["items"],
        "failed": scores["failed"],
        "truncated": scores["truncated"],
        "errors": dict(Counter(str(line["status"]) for line in lines if line.get("status") != "ok")),
        "volumes": len(volumes),
        "retention_interval": interval,
        "slices": {
            **{name: dict(Counter(str(line.get(name)) for line in volumes)) for name in ("source", "plane", "order")},
            **{name: _spread(line["slices"][name] for line in volumes) for name in ("total", "kept")},
        },
        "seconds": _seconds(answered, len(volumes)),
        **scores,
    }


def _retention(
    volumes: Sequence[Mapping[str, Any]], resamples: int, seed: int
) -> tuple[dict[str, float | None], dict[str, list[float] | None]]:
    """Kept fractions over all volumes, and their 95 % intervals over bootstrap draws of volumes."""
    if not volumes:
        return dict.fromkeys(_PARTS), dict.fromkeys(_PARTS)
    counts = np.array(
        [
            (one["slices"]["kept"], one["slices"]["total"], one["tokens"]["kept"], one["tokens"]["unpruned"])
            for one in volumes
        ],
        dtype=np.float64,
    )
    # tokens of the kept slices before pruning: all slices of a volume have the same number
    counts = np.column_stack([counts, counts[:, 3] * counts[:, 0] / counts[:, 1]])

    def fractions(sums: np.ndarray) -> np.ndarray:
        return np.stack([sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 4], sums[..., 2] / sums[..., 3]])

    random = np.random.default_rng(seed)
    drawn = [counts[random.integers(0, len(counts), len(counts))].sum(0) for _ in range(resamples)]
    low, high = np.percentile(fractions(np.stack(drawn)), [2.5, 97.5], axis=1)
    values = fractions(counts.sum(0)).tolist()
    bounds = [[float(a), float(b)] for a, b in zip(low, high, strict=True)]
    return dict(zip(_PARTS, values, strict=True)), dict(zip(_PARTS, bounds, strict=True))


def _spread(numbers: Iterable[int]) -> dict[str, float] | None:
    values = list(numbers)
    return {"min": min(values), "mean": sum(values) / len(values), "max": max(values)} if values else None


def _seconds(answered: Sequence[Mapping[str, Any]], volumes: int) -> dict[str, dict[str, float]]:
    """Seconds per stage: total, mean per volume, mean per item."""
    stages = dict.fromkeys(stage for line in answered for stage in line["seconds"])
    sums = {stage: sum(line["seconds"].get(stage, 0.0) for line in answered) for stage in stages}
    return {
        stage: {"total": total, "per_volume": total / volumes, "per_item": total / len(answered)}
        for stage, total in sums.items()
    }
