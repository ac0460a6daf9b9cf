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


"""Training of the small models that answer questions about phantoms: ``bundles/medpruner_phantom``."""

from __future__ import annotations

from .answer_training import AnswerBatches, AnswerLoss, AnswerNetwork, encode_phantoms, prepare_answer_batch
from .muon_adamw import MuonAdamW
from .phantom_pool import (
    BLOCK_PIXELS,
    FINDINGS,
    NO_FINDING,
    PhantomPool,
    TrainingPhantom,
    load_phantom,
    training_phantom,
)
from .small_models import IMAGE_SIZE, TOKEN_PIXELS, save_small_checkpoint
from .step_batches import StepBatches
from .vision_warm_up import VisionWarmUp, WarmUpBatches, WarmUpLoss, prepare_warm_up_batch
from .workflow import PHANTOM_PROMPT, save_trained, training_handlers, untrained_network

__all__ = [
    "BLOCK_PIXELS",
    "FINDINGS",
    "IMAGE_SIZE",
    "NO_FINDING",
    "PHANTOM_PROMPT",
    "TOKEN_PIXELS",
    "AnswerBatches",
    "AnswerLoss",
    "AnswerNetwork",
    "MuonAdamW",
    "PhantomPool",
    "StepBatches",
    "TrainingPhantom",
    "VisionWarmUp",
    "WarmUpBatches",
    "WarmUpLoss",
    "encode_phantoms",
    "load_phantom",
    "prepare_answer_batch",
    "prepare_warm_up_batch",
    "save_small_checkpoint",
    "save_trained",
    "training_handlers",
    "training_phantom",
    "untrained_network",
]
