# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A wrapper that stores the record of its last call, for tests with sequential calls."""

from __future__ import annotations

from monai_medpruner.networks import PrunedVLM


class RecordedVLM(PrunedVLM):
    """``record`` is that of the last call; None before the first."""

    record = None

    def forward(self, **inputs):
        return super().forward(on_record=self._remember, **inputs)

    def generate(self, **inputs):
        return super().generate(on_record=self._remember, **inputs)

    def _remember(self, record):
        self.record = record
