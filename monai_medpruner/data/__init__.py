# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Volumes and questions from files."""

from __future__ import annotations

from .benchmarks import BENCHMARKS, load_benchmark
from .bundle_items import bundle_items, raw_config, require_items
from .collate import collate_volumes
from .guarded_dataset import GuardedDataset
from .image_list import image_items, pair_questions
from .volume_reader import Volume, VolumeReader, volume_id

__all__ = [
    "BENCHMARKS",
    "GuardedDataset",
    "Volume",
    "VolumeReader",
    "bundle_items",
    "collate_volumes",
    "image_items",
    "load_benchmark",
    "pair_questions",
    "raw_config",
    "require_items",
    "volume_id",
]
