# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Language engines, which answer questions about an encoded study."""

from __future__ import annotations

from monai_medpruner.engines.conversation import Conversation
from monai_medpruner.engines.language_engine import LanguageEngine
from monai_medpruner.engines.select_engine import select_engine
from monai_medpruner.engines.transformers_engine import TransformersEngine
from monai_medpruner.engines.volume_prompt import VolumePrompt
from monai_medpruner.engines.volume_qa import VolumeQA

__all__ = ["Conversation", "LanguageEngine", "TransformersEngine", "VolumePrompt", "VolumeQA", "select_engine"]
