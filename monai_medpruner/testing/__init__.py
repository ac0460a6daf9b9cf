# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What others run on their own pruner, slice rule or model family, and tiny models that need no download."""

from __future__ import annotations

from monai_medpruner.testing.byte_tokenizer import byte_tokenizer
from monai_medpruner.testing.check_family import check_family
from monai_medpruner.testing.check_pruner import check_pruner
from monai_medpruner.testing.check_slice_rule import check_slice_rule
from monai_medpruner.testing.masking_oracle import masked_greedy, masked_logits
from monai_medpruner.testing.random_inputs import padded_batch, prompt_inputs, random_slices, randomize_weights
from monai_medpruner.testing.tiny_checkpoint import TINY, save_parts, save_tiny_checkpoint
from monai_medpruner.testing.tiny_models import TINY_MODELS, TinyModel, tiny_model

__all__ = [
    "TINY",
    "TINY_MODELS",
    "TinyModel",
    "byte_tokenizer",
    "check_family",
    "check_pruner",
    "check_slice_rule",
    "masked_greedy",
    "masked_logits",
    "padded_batch",
    "prompt_inputs",
    "random_slices",
    "randomize_weights",
    "save_parts",
    "save_tiny_checkpoint",
    "tiny_model",
]
