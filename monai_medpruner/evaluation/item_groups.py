# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Items of a benchmark by volume, as a model is asked them."""

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
    """What a model is asked, without the volume's place.

    A question whose own words list its choices (a benchmark's "official" mode) is asked verbatim.

    Args:
        item: with the keys of :data:`~monai_medpruner.data.benchmark_items.ITEM_KEYS`.
        protocol: how to ask.

    Raises:
        SettingsError: the protocol has no such question.
    """
    if item["task"] == "report":
        if protocol.report_prompt is None:
            raise SettingsError(f"protocol {protocol.name!r} asks for no reports; meduni-report does")
        return protocol.report_prompt
    if item["task"] == "closed" and split_choices(item["question"])[1]:
        return str(item["question"])
    return protocol.prompt(item["question"], item["choices"])


def group_items(
    items: Sequence[Mapping[str, Any]], protocol: EvaluationProtocol, done: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Bring the items about a volume together, in the order of their first ones.

    Args:
        items: of a benchmark.
        protocol: how to ask them.
        done: ids to leave out.

    Returns:
        a MONAI datalist, one dictionary a volume: ``image``, its path, and ``items``, those about it, each with what is
        asked under "prompt".
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        if item["id"] not in done:
            groups.setdefault(item["image"], []).append({**item, "prompt": item_prompt(item, protocol)})
    return [{"image": image, "items": members} for image, members in groups.items()]


def items_digest(items: Iterable[Mapping[str, Any]]) -> str:
    """Name items by their content, whatever folder their images are in: 16 hexadecimal digits of SHA-256."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps({**item, "image": None}, sort_keys=True).encode())
    return digest.hexdigest()[:16]
