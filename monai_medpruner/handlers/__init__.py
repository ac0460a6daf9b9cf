# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Handlers for MONAI evaluators."""

from __future__ import annotations

from monai_medpruner.handlers.answer_writer import AnswerWriter

__all__ = ["AnswerWriter"]
