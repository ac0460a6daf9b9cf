# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Measure questions about studies on vLLM and on transformers, unpruned and pruned to 5 % of the tokens.

    .venv-vllm/bin/python benchmarks/vllm_serving.py
    python benchmarks/performance.py --page docs/performance.md

The first command, in the environment of scripts/check_vllm, writes a JSON file, the second the page. Weights are
random, since time depends on shapes alone. Studies are encoded beforehand: the encoder costs the same for each engine.
Each engine has a process of its own with one thread, and each measurement has studies that the engine has not seen. The
page shows CPU seconds: on an idle core they are the seconds on the clock, and other programs change them little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

os.environ.update(
    OMP_NUM_THREADS="1",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_CPU_KVCACHE_SPACE="2",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_NO_USAGE_STATS="1",
    VLLM_LOGGING_LEVEL="ERROR",
)

import torch
from monai.data import MetaTensor

from monai_medpruner.benchmark import machine
from monai_medpruner.engines import Conversation, LanguageEngine, TransformersEngine, VolumePrompt
from monai_medpruner.engines.vllm import OfflineVLLMEngine
from monai_medpruner.networks import Checkpoint, EncodedStudy, TransformersEncoder
from monai_medpruner.pruners import RandomTokensPruner
from monai_medpruner.testing import save_tiny_checkpoint
from monai_medpruner.testing.tiny_models import TINY_MODELS

RESULTS = Path(__file__).resolve().parent / "results" / "vllm_serving.json"
ENGINES = ("transformers", "vllm without its prefix cache", "vllm")
SHARES = (1.0, 0.05)
STUDIES, QUESTIONS, NEW_TOKENS = 4, 16, 16
SLICES, PIXELS = 24, 256
TEXT = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
}


def save_model(folder: Path) -> Path:
    """Qwen3-VL with a tiny encoder and a language model that is wide enough for time to be spent in it."""
    tiny = TINY_MODELS["qwen3_vl"]

    def wide(vocabulary: int, ids: dict[str, Any]) -> Any:
        config: Any = tiny.config(vocabulary, ids)
        for name, value in TEXT.items():
            setattr(config.text_config, name, value)
        config.text_config.rope_parameters |= {"mrope_section": [12, 10, 10], "mrope_interleaved": True}
        config.vision_config.out_hidden_size = TEXT["hidden_size"]
        return config

    return save_tiny_checkpoint(replace(tiny, config=wide), folder)


def studies(checkpoint: Checkpoint, share: float, first_seed: int) -> list[EncodedStudy]:
    """Encoded random volumes with a share of their tokens."""
    encoder = TransformersEncoder(checkpoint, None if share == 1 else RandomTokensPruner(keep_ratio=share))
    found = []
    for seed in range(first_seed, first_seed + STUDIES):
        generator = torch.Generator().manual_seed(seed)
        found.append(encoder.encode(MetaTensor(torch.rand(1, PIXELS, PIXELS, SLICES, generator=generator))))
    return found


def conversations(count: int, limit: int) -> list[Conversation]:
    return [Conversation(VolumePrompt(), (f"Question {number}: is it?",), limit) for number in range(count)]


class Clock:
    """CPU seconds and seconds on the clock since it was made."""

    def __init__(self) -> None:
        self.started = process_time(), perf_counter()

    def seconds(self) -> dict[str, float]:
        return {"cpu": process_time() - self.started[0], "clock": perf_counter() - self.started[1]}


def measure(engine: LanguageEngine, checkpoint: Checkpoint, share: float) -> dict[str, Any]:
    """Seconds to the first token of two questions, and questions in a minute."""
    engine.generate(studies(checkpoint, share, 100)[0], conversations(2, 2))  # code and memory that a first call needs
    first_token: dict[str, list[dict[str, float]]] = {"first": [], "second": []}
    for study in studies(checkpoint, share, 0):
        for name, conversation in zip(first_token, conversations(2, 1), strict=True):
            clock = Clock()
            answers = engine.generate(study, [conversation])
            first_token[name].append(clock.seconds())
    asked, others = conversations(QUESTIONS, NEW_TOKENS), studies(checkpoint, share, STUDIES)
    clock = Clock()
    count = sum(len(engine.generate(study, asked)) for study in others)
    spent = clock.seconds()
    return {
        "share": share,
        "prompt_tokens": answers[0].prompt_tokens,
        "first_token_s": {
            name: {kind: statistics.median(one[kind] for one in found) for kind in spent}
            for name, found in first_token.items()
        },
        "questions_per_minute": {kind: 60 * count / value for kind, value in spent.items()},
    }


def load_engine(name: str, checkpoint: Checkpoint) -> LanguageEngine:
    if name == "transformers":
        return TransformersEngine(checkpoint)
    options = {
        "enforce_eager": True,
        "max_model_len": 4096,
        "max_num_batched_tokens": 4096,
        "skip_mm_profiling": True,
        "enable_prefix_caching": name == "vllm",
    }
    return OfflineVLLMEngine(checkpoint, options=options)


def measure_engine(name: str) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(str(save_model(Path(folder) / "model")))
        engine = load_engine(name, checkpoint)
        return [{"engine": name, **measure(engine, checkpoint, share)} for share in SHARES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, help="measure one engine and print what was found")
    arguments = parser.parse_args()
    if arguments.engine:
        print(json.dumps(measure_engine(arguments.engine)))
        return
    load_before = os.getloadavg()[0]
    rows = []
    for name in ENGINES:
        command = [sys.executable, __file__, "--engine", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows += json.loads(done.stdout.strip().splitlines()[-1])
    torch.set_num_threads(1)
    found = {
        "machine": machine(torch.device("cpu")),
        "vllm": version("vllm_cpu"),
        "load": round(load_before, 1),
        "model": TEXT,
        "studies": STUDIES,
        "questions": QUESTIONS,
        "new_tokens": NEW_TOKENS,
        "slices": SLICES,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
