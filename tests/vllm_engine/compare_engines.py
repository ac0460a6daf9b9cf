# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Generate with vLLM and with transformers from the same pruned studies, and print what they agree on as JSON.

    python compare_engines.py FAMILY PHANTOMS

A process of its own for each family, because vLLM does not give back its memory. Answers run past the end token, so
that more than the few tokens of an answer are compared. Qwen3-VL, Gemma 3 and VideoLLaMA3 are the trained models of the
phantom bundle; other families have random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from vllm_server import CPU_SETTINGS

# before vLLM is imported
os.environ.update({**CPU_SETTINGS, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"})

import torch
from phantom_studies import QUESTIONS, encoded_studies
from random_models import RANDOM_FAMILIES, save_random_checkpoint
from vllm import SamplingParams

from monai_medpruner.engines import Conversation
from monai_medpruner.engines.conversation import conversation_text
from monai_medpruner.engines.vllm import OfflineVLLMEngine, pruned_request
from monai_medpruner.networks import PrunedVLM
from monai_medpruner.networks.export_language_model import export_language_model

NEW_TOKENS = 16
CONTEXT = 8192


def expected(network: Any, study: Any, conversation: Conversation, one_way: bool) -> tuple[list[int], list[float]]:
    """Tokens and their log-probabilities by transformers; ``one_way`` lets no token attend to a later one."""
    checkpoint = network.engine.checkpoint
    indices = study.record.slice_indices
    text = conversation_text(conversation, checkpoint.tokenizer, checkpoint.family, study.grids, indices)
    inputs = dict(checkpoint.tokenizer(text, add_special_tokens=False, return_tensors="pt"))
    if one_way:  # Gemma 3 attends both ways within the tokens of this type
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    model = PrunedVLM(checkpoint.model, preserve_position_ids=study.preserve_position_ids)
    output = model.generate(
        encoded=study.slices,
        **inputs,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=-1,
        return_dict_in_generate=True,
        output_logits=True,
    )
    tokens = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    steps = zip(output.logits, tokens, strict=True)
    return tokens, [float(torch.log_softmax(logits[0].float(), -1)[token]) for logits, token in steps]


def compared(network: Any, asked: list[Any], completions: list[Any], one_way: bool) -> list[dict[str, Any]]:
    """For each question whether the tokens are equal, and the largest difference of log-probabilities up to there."""
    lines = []
    for (study, conversation), completion in zip(asked, completions, strict=True):
        tokens, logprobs = expected(network, study, conversation, one_way)
        differences = [abs(one - own) for one, own in zip(completion.logprobs, logprobs, strict=True)]
        same = [one == own for one, own in zip(completion.ids, tokens, strict=True)]
        first = same.index(False) if False in same else len(same)
        lines.append({"equal": all(same), "difference": max(differences[:first], default=0.0)})
    return lines


def engine_options(family: str, batched_tokens: int | None) -> dict[str, Any]:
    """What ``vllm.LLM`` is told beyond the engine's own arguments."""
    options: dict[str, Any] = {"enforce_eager": True, "max_model_len": CONTEXT}
    if family != "video_llama_3":
        options["skip_mm_profiling"] = True
    if batched_tokens is not None:
        options["max_num_batched_tokens"] = batched_tokens
    return options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family")
    parser.add_argument("phantoms", type=Path)
    parser.add_argument("--batched_tokens", type=int, help="tokens that the engine runs at once")
    arguments = parser.parse_args()
    family, phantoms = arguments.family, arguments.phantoms
    with tempfile.TemporaryDirectory() as name:
        model = save_random_checkpoint(family, Path(name) / "model") if family in RANDOM_FAMILIES else None
        network, encoded = encoded_studies(family, phantoms, model)
        checkpoint = network.engine.checkpoint
        exported = None
        if family == "video_llama_3":
            exported = Path(name) / "language_model"
            export_language_model(checkpoint.path_or_id, exported)
        options = engine_options(family, arguments.batched_tokens)
        engine = OfflineVLLMEngine(checkpoint, max_new_tokens=NEW_TOKENS, language_model=exported, options=options)
        sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True, logprobs=0)
        conversations = [Conversation.about(network.prompt, question) for question in QUESTIONS]
        asked = [(study, one) for study in encoded for one in conversations]
        requests = [pruned_request(*pair, checkpoint) for pair in asked]
        completions = engine.complete(requests, sampling)
        found: dict[str, Any] = {
            "lines": compared(network, asked, completions, one_way=False),
            "lengths": [one.length for one in requests],
            "cached": [one.cached_tokens for one in completions],
            "answers": [
                [one.text for one in engine.generate(study, conversations)]
                == [network.answer(study, question).text for question in QUESTIONS]
                for study in encoded
            ],
        }
        if family == "gemma3":
            found["one_way"] = compared(network, asked, completions, one_way=True)
        if checkpoint.family.preserves_position_ids:
            _, others = encoded_studies(family, phantoms, model, preserve_position_ids=False)
            moved = [pruned_request(study, one, checkpoint) for study in others for one in conversations]
            pairs = zip(engine.complete(moved, sampling), completions, strict=True)
            found["renumbered"] = [
                max(abs(one - own) for one, own in zip(control.logprobs, kept.logprobs, strict=True))
                for control, kept in pairs
            ]
        sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
