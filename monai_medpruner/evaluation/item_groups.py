# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Group the items of a benchmark by volume, and make their prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from monai_medpruner.data.conversations import split_choices
from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics import EvaluationProtocol

__all__ = ["group_items", "item_prompt", "items_digest"]


def item_prompt(item: Mapping[str, Any], protocol: EvaluationProtocol) -> str:
    """Return the text of the question for the model.

    A closed question is asked as one, also where its choices are unknown. One that already lists its choices (a
    benchmark's "official" mode) is asked verbatim, followed by the protocol's instruction how to answer.

    Args:
        item: item with the keys of :data:`~monai_medpruner.data.benchmark_items.ITEM_KEYS`.
        protocol: protocol of the evaluation.

    Raises:
        SettingsError: the protocol has no prompt for the task of the item.
    """
    if item["task"] == "report":
        if protocol.report_prompt is None:
            raise SettingsError(f"the protocol {protocol.name!r} has no prompt for reports; use meduni-report")
        return protocol.report_prompt
    question, closed = str(item["question"]), item["task"] == "closed"
    listed = closed and bool(split_choices(question)[1])
    return protocol.prompt(question, None if listed else item["choices"], closed)


def group_items(
    items: Sequence[Mapping[str, Any]], protocol: EvaluationProtocol, done: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Group items by volume, in the order in which the volumes first occur.

    Args:
        items: items of a benchmark.
        protocol: protocol of the evaluation.
        done: ids of items to leave out.

    Returns:
        A MONAI datalist with one dictionary per volume: ``image``, the path, and ``items``, its items, each with its
        "prompt".
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        if item["id"] not in done:
            groups.setdefault(item["image"], []).append({**item, "prompt": item_prompt(item, protocol)})
    return [{"image": image, "items": members} for image, members in groups.items()]


def items_digest(items: Iterable[Mapping[str, Any]]) -> str:
    """Return a digest of the items, independent of their image paths: 16 hexadecimal digits of SHA-256."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps({**item, "image": None}, sort_keys=True).encode())
    return digest.hexdigest()[:16]
