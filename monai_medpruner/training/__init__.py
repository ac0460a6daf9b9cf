# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Training of the small models of ``bundles/medpruner_phantom``, which answer questions about phantoms."""

from __future__ import annotations

from monai_medpruner.training.answer_training import (
    PHANTOM_PROMPT,
    AnswerBatches,
    AnswerLoss,
    AnswerNetwork,
    encode_phantoms,
    prepare_answer_batch,
)
from monai_medpruner.training.muon_adamw import MuonAdamW
from monai_medpruner.training.phantom_pool import PhantomPool
from monai_medpruner.training.small_models import IMAGE_SIZE, TOKEN_PIXELS, save_small_checkpoint
from monai_medpruner.training.step_batches import StepBatches
from monai_medpruner.training.training_phantom import (
    BLOCK_PIXELS,
    FINDINGS,
    NO_FINDING,
    TrainingPhantom,
    load_phantom,
    training_phantom,
)
from monai_medpruner.training.vision_warm_up import VisionWarmUp, WarmUpBatches, WarmUpLoss, prepare_warm_up_batch
from monai_medpruner.training.workflow import save_trained, training_handlers, untrained_network

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
