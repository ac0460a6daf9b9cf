# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A question of an evaluation between the encoding of its volume and its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monai_medpruner.evaluation.variants import Variant
from monai_medpruner.networks import EncodedStudy

__all__ = ["AskedItem"]


@dataclass(frozen=True, eq=False)
class AskedItem:
    """A question of a benchmark that is to be answered.

    Args:
        variant: whose predictions it belongs to.
        study: encoded volume; pruned for the question once that was done.
        item: the question.
        first: whether it is the variant's first question about the volume.
        own_record: whether the study was pruned for this question alone.
        error: class and message of the error, if it failed.
    """

    variant: Variant
    study: EncodedStudy
    item: dict[str, Any]
    first: bool
    own_record: bool = False
    error: tuple[str, str] | None = None
