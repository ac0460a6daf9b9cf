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
from monai_medpruner.training.findings_answers import (
    EncodedFindings,
    FindingsAnswerBatches,
    encode_findings,
    exact_answers,
    kept_slices,
    oracle_tokens,
    questions_right,
    random_tokens,
)
from monai_medpruner.training.findings_contrast import (
    PhraseContrast,
    PhraseLoss,
    prepare_phrase_batch,
    square_contrast,
)
from monai_medpruner.training.findings_phrases import (
    PHRASE_PARTS,
    PhraseBatches,
    caption_phrases,
    phrase_terms,
    says,
    square_looks,
)
from monai_medpruner.training.findings_volumes import (
    BRAIN_WINDOW_HU,
    FINDINGS_SHAPE,
    NO_FINDING_CAPTION,
    FindingsVolume,
    findings_image,
    findings_pool,
    findings_volume,
)
from monai_medpruner.training.muon_adamw import MuonAdamW
from monai_medpruner.training.phantom_pool import PhantomPool
from monai_medpruner.training.small_models import IMAGE_SIZE, TOKEN_PIXELS, SmallShape, save_small_checkpoint
from monai_medpruner.training.step_batches import StepBatches
from monai_medpruner.training.training_phantom import (
    BLOCK_PIXELS,
    FINDINGS,
    NO_FINDING,
    TrainingPhantom,
    load_phantom,
    training_phantom,
)
from monai_medpruner.training.vision_warm_up import VisionWarmUp, WarmUpBatches, WarmUpLoss, prepare_labeled_batch
from monai_medpruner.training.workflow import save_trained, training_handlers, untrained_network

__all__ = [
    "BLOCK_PIXELS",
    "BRAIN_WINDOW_HU",
    "FINDINGS",
    "FINDINGS_SHAPE",
    "IMAGE_SIZE",
    "NO_FINDING",
    "NO_FINDING_CAPTION",
    "PHANTOM_PROMPT",
    "PHRASE_PARTS",
    "TOKEN_PIXELS",
    "AnswerBatches",
    "AnswerLoss",
    "AnswerNetwork",
    "EncodedFindings",
    "FindingsAnswerBatches",
    "FindingsVolume",
    "MuonAdamW",
    "PhantomPool",
    "PhraseBatches",
    "PhraseContrast",
    "PhraseLoss",
    "SmallShape",
    "StepBatches",
    "TrainingPhantom",
    "VisionWarmUp",
    "WarmUpBatches",
    "WarmUpLoss",
    "caption_phrases",
    "encode_findings",
    "encode_phantoms",
    "exact_answers",
    "findings_image",
    "findings_pool",
    "findings_volume",
    "kept_slices",
    "load_phantom",
    "oracle_tokens",
    "phrase_terms",
    "prepare_answer_batch",
    "prepare_labeled_batch",
    "prepare_phrase_batch",
    "questions_right",
    "random_tokens",
    "save_small_checkpoint",
    "save_trained",
    "says",
    "square_contrast",
    "square_looks",
    "training_handlers",
    "training_phantom",
    "untrained_network",
]
