# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Reading volumes, questions and benchmarks from files."""

from __future__ import annotations

from monai_medpruner.data.benchmarks import BENCHMARKS, load_benchmark
from monai_medpruner.data.collate import collate_volumes
from monai_medpruner.data.dicom_decoding import DicomDecoding
from monai_medpruner.data.guarded_dataset import GuardedDataset
from monai_medpruner.data.image_list import image_items, pair_questions, question_items, require_items
from monai_medpruner.data.reading_limits import ReadingLimits
from monai_medpruner.data.volume_reader import Volume, VolumeReader, volume_id

__all__ = [
    "BENCHMARKS",
    "DicomDecoding",
    "GuardedDataset",
    "ReadingLimits",
    "Volume",
    "VolumeReader",
    "collate_volumes",
    "image_items",
    "load_benchmark",
    "pair_questions",
    "question_items",
    "require_items",
    "volume_id",
]
