# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The values that text is generated with, in place of those that a checkpoint's ``generation_config.json`` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["GREEDY", "GenerationValues"]

#: greedy decoding, as the released evaluation does it
GREEDY = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}

# without an effect on which token follows
_KEPT = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "use_cache",
    "cache_implementation",
    "cache_config",
    "max_cache_len",
    "compile_config",
    "disable_compile",
)
# facts about the file
_FACTS = ("transformers_version", "_from_model_config")
# transformers compares these with numbers; other values are off where they are None
_OFF = {"min_length": 0, "no_repeat_ngram_size": 0, "num_return_sequences": 1, "num_beam_groups": 1}


@dataclass(frozen=True)
class GenerationValues:
    """How text is generated with a checkpoint.

    Args:
        kept: values of the checkpoint that are used: ids of its tokens, and how it computes.
        overridden: values of the checkpoint that are not used.
    """

    kept: Mapping[str, Any]
    overridden: Mapping[str, Any]

    @classmethod
    def of(cls, config: Any) -> GenerationValues:
        """Tell the values of a ``transformers.GenerationConfig`` apart; those that it leaves open are left out."""
        stated = {name: one for name, one in config.to_diff_dict().items() if name not in _FACTS and one is not None}
        kept = {name: one for name, one in stated.items() if name in _KEPT}
        others = {name: one for name, one in stated.items() if name not in _KEPT and one is not False}
        return cls(kept, {name: one for name, one in others.items() if {**_OFF, **GREEDY}.get(name) != one})

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the model's ``generate`` that take the place of the checkpoint's values."""
        return {**{name: _OFF.get(name) for name in self.overridden}, **GREEDY}

    @property
    def end_tokens(self) -> set[int]:
        """Ids of the tokens that end an answer."""
        stated = self.kept.get("eos_token_id")
        return set() if stated is None else set(stated) if isinstance(stated, (list, tuple)) else {int(stated)}

    def describe(self) -> dict[str, Any]:
        """Return the values as JSON values."""
        return {**GREEDY, "checkpoint": {"kept": dict(self.kept), "overridden": dict(self.overridden)}}
