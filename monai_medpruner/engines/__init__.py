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

"""Loops over data sets: evaluation of a benchmark."""

from __future__ import annotations

from .benchmark_evaluator import BenchmarkEvaluator
from .item_groups import group_items, item_prompt
from .sweep_evaluator import SweepEvaluator
from .variant_evaluator import Variant, VariantEvaluator

__all__ = ["BenchmarkEvaluator", "SweepEvaluator", "Variant", "VariantEvaluator", "group_items", "item_prompt"]
