# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The encoder side: slices to pruned tokens, and the drop-in wrapper around stock models."""

from __future__ import annotations

from monai_medpruner.networks.cached_encoder import CachedEncoder, CachedPreprocessing, dataset_with_cache
from monai_medpruner.networks.checkpoint import Checkpoint
from monai_medpruner.networks.encoded_study import EncodedStudy
from monai_medpruner.networks.families import FAMILIES, ModelFamily
from monai_medpruner.networks.pruned_slices import PrunedSlices
from monai_medpruner.networks.pruned_vlm import PrunedVLM
from monai_medpruner.networks.study_cache import StudyCache, open_study_cache
from monai_medpruner.networks.study_key import StudyKey, VolumeSource
from monai_medpruner.networks.transformers_encoder import SliceEncoder, TransformersEncoder

__all__ = [
    "FAMILIES",
    "CachedEncoder",
    "CachedPreprocessing",
    "Checkpoint",
    "EncodedStudy",
    "ModelFamily",
    "PrunedSlices",
    "PrunedVLM",
    "SliceEncoder",
    "StudyCache",
    "StudyKey",
    "TransformersEncoder",
    "VolumeSource",
    "dataset_with_cache",
    "open_study_cache",
]
