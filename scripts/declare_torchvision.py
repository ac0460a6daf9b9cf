# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Let PyPI's torchvision, which is built for CUDA, be imported beside the CPU build of torch.

Its operators then do not load, and it insists on two of them, which no model here calls: they are declared before it is
imported. ``scripts/check_vllm`` copies this module into its environment, where a ``.pth`` file imports it in every
process, since vLLM looks at models in processes of its own.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class _Declare(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library: Any = torch.library.Library("torchvision", "DEF")
            sys._torchvision_library = self.library  # type: ignore[attr-defined]  # declared as long as it lives
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, _Declare())
