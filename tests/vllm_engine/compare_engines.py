# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Generate with vLLM and with transformers from the same pruned studies, and print what they agree on as JSON.

    python compare_engines.py FAMILY PHANTOMS

A process of its own for each family, because vLLM does not give back its memory. Answers run past the end token, so
that more than the few tokens of an answer are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

# before vLLM is imported: one process, one thread for each core, no reports of use
os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_NO_USAGE_STATS="1",
    VLLM_LOGGING_LEVEL="ERROR",
)

import torch
from vllm import SamplingParams

from monai_medpruner.bundles import BundleWorkflow
from monai_medpruner.engines import Conversation
from monai_medpruner.engines.conversation import conversation_text
from monai_medpruner.engines.vllm import OfflineVLLMEngine, pruned_request
from monai_medpruner.networks import PrunedVLM
from monai_medpruner.networks.export_language_model import export_language_model

REPOSITORY = Path(__file__).resolve().parents[2]
QUESTIONS = (
    "In which plane was this CT acquired?",
    "In which contrast phase was this CT acquired?",
    "Which organ bears the lesion?",
    "Which abnormality does this CT show?",
)
NEW_TOKENS = 16
CONTEXT = 8192


def studies(family: str, phantoms: Path, preserve: bool | None) -> tuple[Any, list[Any]]:
    """The bundle's network, and the encoded phantoms."""
    overrides = {"family": family, "preset": "fast"} | ({} if preserve is None else {"preserve_position_ids": preserve})
    workflow = BundleWorkflow(REPOSITORY / "bundles/medpruner_phantom", overrides, configs=("inference", "preset_fast"))
    workflow.initialize()
    parser = workflow.parser
    network, load = parser.get_parsed_content("network_def"), parser.get_parsed_content("preprocessing")
    paths = sorted((phantoms / "volumes").glob("*.nii.gz"))
    return network, [network.encode(load({"image": str(path)})["image"]) for path in paths]


def expected(network: Any, study: Any, conversation: Conversation) -> tuple[list[int], list[float]]:
    """Tokens and their log-probabilities by transformers."""
    checkpoint = network.engine.checkpoint
    indices = study.record.slice_indices
    text = conversation_text(conversation, checkpoint.tokenizer, checkpoint.family, study.grids, indices)
    inputs = dict(checkpoint.tokenizer(text, add_special_tokens=False, return_tensors="pt"))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family")
    parser.add_argument("phantoms", type=Path)
    parser.add_argument("--batched_tokens", type=int, help="tokens that the engine runs at once")
    arguments = parser.parse_args()
    network, encoded = studies(arguments.family, arguments.phantoms, None)
    checkpoint = network.engine.checkpoint
    conversations = [Conversation.about(network.prompt, question) for question in QUESTIONS]
    with tempfile.TemporaryDirectory() as name:
        exported = None
        if arguments.family == "video_llama_3":
            exported = Path(name) / "language_model"
            export_language_model(checkpoint.path_or_id, exported)
        options = {"enforce_eager": True, "max_model_len": CONTEXT, "skip_mm_profiling": True}
        if arguments.batched_tokens is not None:
            options["max_num_batched_tokens"] = arguments.batched_tokens
        if exported is not None:
            del options["skip_mm_profiling"]
        engine = OfflineVLLMEngine(checkpoint, max_new_tokens=NEW_TOKENS, language_model=exported, options=options)
        sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True, logprobs=0)
        asked = [(study, one) for study in encoded for one in conversations]
        requests = [pruned_request(*pair, checkpoint) for pair in asked]
        completions = engine.complete(requests, sampling)
        lines = []
        for (study, conversation), request, completion in zip(asked, requests, completions, strict=True):
            tokens, logprobs = expected(network, study, conversation)
            differences = [abs(one - own) for one, own in zip(completion.logprobs, logprobs, strict=True)]
            lines.append(
                {
                    "equal": list(completion.ids) == tokens,
                    "difference": max(differences),
                    "kept": sum(request.counts),
                    "cached": completion.cached_tokens,
                }
            )
        answers = [
            [one.text for one in engine.generate(study, conversations)]
            == [network.answer(study, question).text for question in QUESTIONS]
            for study in encoded
        ]
        renumbered = []
        if arguments.family == "qwen3_vl":
            _, others = studies(arguments.family, arguments.phantoms, False)
            moved = [pruned_request(study, one, checkpoint) for study in others for one in conversations]
            controls = engine.complete(moved, sampling)
            pairs = [
                zip(one.logprobs, own.logprobs, strict=True) for one, own in zip(controls, completions, strict=True)
            ]
            renumbered = [max(abs(one - own) for one, own in pair) for pair in pairs]
        sys.stdout.write(json.dumps({"lines": lines, "answers": answers, "renumbered": renumbered}) + "\n")


if __name__ == "__main__":
    main()
