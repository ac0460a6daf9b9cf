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

"""Model families: one file each, found by the ``model_type`` of a model's configuration."""

from __future__ import annotations

from transformers import PreTrainedModel

from monai_medpruner.errors import UnsupportedModelError

from .base import EncodedSlices, ModelFamily
from .qwen3_vl import Qwen3VLFamily
from .video_llama3 import VideoLlama3Family

__all__ = [
    "FAMILIES",
    "EncodedSlices",
    "ModelFamily",
    "Qwen3VLFamily",
    "VideoLlama3Family",
    "family_class",
    "family_of",
]

#: every supported family; a new one adds its line here
FAMILIES: list[type[ModelFamily]] = [
    Qwen3VLFamily,
    VideoLlama3Family,
]


def family_class(model_type: str) -> type[ModelFamily]:
    """Return the family that serves a ``model_type``.

    Raises:
        UnsupportedModelError: none does; the message names those that are supported and how to add one.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    supported = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise UnsupportedModelError(
        f"no family is registered for model_type {model_type!r}; supported are: {supported}. To add one, write a "
        "ModelFamily in monai_medpruner/networks/families/ and append it to FAMILIES (see CONTRIBUTING.md)."
    )


def family_of(model: PreTrainedModel) -> ModelFamily:
    """Return the family of a model, bound to it."""
    return family_class(model.config.model_type)(model)
