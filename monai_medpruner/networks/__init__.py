# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices and a question to tokens to an answer: stock models, read through a pruner."""

from __future__ import annotations

from monai_medpruner.networks.encoding import PrunedSlices
from monai_medpruner.networks.families import FAMILIES, ModelFamily
from monai_medpruner.networks.pruned_vlm import PrunedVLM
from monai_medpruner.networks.record import PruningRecord, VolumeRecord
from monai_medpruner.networks.volume_prompt import VolumePrompt
from monai_medpruner.networks.volume_qa import EncodedVolume, VolumeQA
from monai_medpruner.results import SliceRecord

__all__ = [
    "FAMILIES",
    "EncodedVolume",
    "ModelFamily",
    "PrunedSlices",
    "PrunedVLM",
    "PruningRecord",
    "SliceRecord",
    "VolumePrompt",
    "VolumeQA",
    "VolumeRecord",
]
