# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Qwen2-VL: the geometry of the Qwen-VL generations and nothing else."""

from __future__ import annotations

from monai_medpruner.networks.families.base import FamilySummary
from monai_medpruner.networks.families.qwen_geometry import QwenGeometry

__all__ = ["Qwen2VLFamily"]


class Qwen2VLFamily(QwenGeometry):
    """Qwen2-VL (``Qwen2VLForConditionalGeneration``)."""

    model_types = ("qwen2_vl",)
    summary = FamilySummary(
        serves="Qwen2-VL", merge="2×2 merge group", positions="original, M-RoPE", scored_layer="last"
    )
