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

"""Slices and a question to tokens to an answer: stock models, read through a pruner."""

from __future__ import annotations

from .encoding import PrunedSlices
from .families import FAMILIES, ModelFamily
from .pruned_vlm import PrunedVLM
from .record import PruningRecord, SliceRecord, VolumeRecord
from .volume_prompt import VolumePrompt
from .volume_qa import EncodedVolume, VolumeQA

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
