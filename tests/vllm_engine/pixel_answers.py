# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Generate with vLLM from ordinary pictures, and print tokens and log-probabilities as JSON.

    python pixel_answers.py FAMILY

Whether the classes of this package or vLLM's own do it, is a matter of the variable ``VLLM_PLUGINS``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from vllm_server import CPU_SETTINGS

os.environ.update(CPU_SETTINGS, VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_LOGGING_LEVEL="ERROR")

import numpy as np
import torch
from phantom_studies import PHANTOM_BUNDLE
from PIL import Image
from random_models import RANDOM_FAMILIES, save_random_checkpoint
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from vllm import LLM, SamplingParams
from vllm.model_executor.models import ModelRegistry

QUESTIONS = ("In which plane was this CT acquired?", "Which organ bears the lesion?")


def model(family: str, folder: Path) -> Path:
    """The family's small checkpoint, under the names that published weights have."""
    if family in RANDOM_FAMILIES:
        return save_random_checkpoint(family, folder)
    shutil.copytree(PHANTOM_BUNDLE / "models" / family, folder)
    if family == "gemma3":
        _as_published_gemma3(folder)
    return folder


def _as_published_gemma3(folder: Path) -> None:
    """Give a checkpoint what vLLM 0.32 expects of Gemma 3: names of weights with a further level, which transformers 5
    leaves out, and tokens for one to four newlines, whose embeddings are 0 here.
    """
    newlines = ["\n" * count for count in range(1, 5)]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(one, normalized=False) for one in newlines])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] += len(newlines)
    (folder / "config.json").write_text(json.dumps(config))
    weights = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        more = len(newlines) if name.endswith(("embed_tokens.weight", "lm_head.weight")) else 0
        padded = torch.cat([weight, torch.zeros(more, *weight.shape[1:])]) if more else weight
        weights[name.replace("vision_tower.", "vision_tower.vision_model.")] = padded
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for _ in range(2)]
    with tempfile.TemporaryDirectory() as name:
        path = model(arguments.family, Path(name) / "model")
        llm = LLM(
            str(path),
            dtype="float32",
            enforce_eager=True,
            max_model_len=2048,
            seed=0,
            skip_mm_profiling=True,
            limit_mm_per_prompt={"image": 2},
        )
        content: list[dict[str, Any]] = [{"type": "image"}, {"type": "image"}]
        prompts = [
            llm.get_tokenizer().apply_chat_template(
                [{"role": "user", "content": [*content, {"type": "text", "text": question}]}],
                tokenize=False,
                add_generation_prompt=True,
            )
            for question in QUESTIONS
        ]
        sampling = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, logprobs=0)
        requests = [{"prompt": prompt, "multi_modal_data": {"image": images}} for prompt in prompts]
        outputs = [one.outputs[0] for one in llm.generate(requests, sampling, use_tqdm=False)]
    own = ModelRegistry.models[llm.llm_engine.model_config.architectures[0]].module_name
    found = {
        "module": own,
        "tokens": [list(one.token_ids) for one in outputs],
        "logprobs": [
            [step[token].logprob for step, token in zip(one.logprobs, one.token_ids, strict=True)] for one in outputs
        ],
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
