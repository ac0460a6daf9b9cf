# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Measure what the second question about a study costs before decoding, as a share of the first.

Each round asks, from the file to the first token: a first question, which finds nothing; a second one in the same
process; and one on another day, with the folder of the study cache alone. The files' hash and the cache's own work
count. Weights are random, because time depends only on shapes and on the numbers of slices and tokens: Qwen3-VL-2B's
true width, its depth divided by a number that is the same for encoder and language model. Slices are evenly spaced and
tokens a fixed share, as a budget would leave them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from monai.transforms import Compose
from transformers import AutoModelForImageTextToText, Qwen3VLConfig

from monai_medpruner.engines import TransformersEngine, VolumeQA
from monai_medpruner.networks import CachedEncoder, CachedPreprocessing, Checkpoint, StudyCache, TransformersEncoder
from monai_medpruner.pruners import RandomTokensPruner
from monai_medpruner.testing import save_tiny_checkpoint
from monai_medpruner.transforms import (
    IntensityWindowsd,
    LoadVolumed,
    SliceLimitd,
    SlicePlaned,
    SliceRanged,
    TimedCompose,
)

# dimensions of Qwen/Qwen3-VL-2B-Instruct; the vocabulary is that of the tiny tokenizer
VISION = {
    "depth": 24,
    "hidden_size": 1024,
    "num_heads": 16,
    "intermediate_size": 4096,
    "patch_size": 16,
    "out_hidden_size": 2048,
    "num_position_embeddings": 2304,
}
TEXT = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
}
QUESTIONS = ("Is there a lesion in the liver?", "Which organ is enlarged, and by how much?", "Is the spleen normal?")


def build(folder: Path, divisor: int, dtype: torch.dtype, device: torch.device) -> Checkpoint:
    """A checkpoint of the true width and a part of the depth."""
    checkpoint = Checkpoint(str(save_tiny_checkpoint("qwen3_vl", folder)), dtype=dtype, device=device)
    tiny = checkpoint.model.config.to_dict()
    depth = VISION["depth"] // divisor
    vision = {**VISION, "depth": depth, "deepstack_visual_indexes": sorted({depth // 4, depth // 2, 3 * depth // 4})}
    text = {**TEXT, "num_hidden_layers": TEXT["num_hidden_layers"] // divisor}
    parts = {"vision_config": {**tiny["vision_config"], **vision}, "text_config": {**tiny["text_config"], **text}}
    with device:
        checkpoint._model = AutoModelForImageTextToText.from_config(
            Qwen3VLConfig(**{**tiny, **parts}), dtype=dtype
        ).eval()
    # the limit of the original checkpoint is 16 million pixels, far above the size of a slice
    checkpoint.image_processor.size["longest_edge"] = 2**24
    return checkpoint


def transforms(slices: str, kept: int | None) -> Compose:
    load = [
        LoadVolumed("image"),
        SlicePlaned("image"),
        IntensityWindowsd("image", "ct", "soft_tissue", True),
        SliceRanged("image", slices),
    ]
    return Compose([TimedCompose("load", load), TimedCompose("filter", [SliceLimitd("image", kept)])])


class Day:
    """One process: its own memory, the folder of an earlier day."""

    def __init__(self, checkpoint: Checkpoint, folder: Path, arguments: argparse.Namespace) -> None:
        pruner = None if arguments.tokens == 1 else RandomTokensPruner(keep_ratio=arguments.tokens)
        encoder = CachedEncoder(TransformersEncoder(checkpoint, pruner), StudyCache(folder))
        self.load = CachedPreprocessing(transforms(arguments.range, arguments.slices), encoder)
        self.network = VolumeQA(encoder, TransformersEngine(checkpoint, max_new_tokens=1))
        self.image = arguments.image

    def ask(self, question: str) -> tuple[float, Any]:
        start = perf_counter()
        study = self.network.encode(self.load({"image": self.image})["image"])
        answer = self.network.answer(study, question)
        return perf_counter() - start, (study, answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("image", help="NIfTI file or DICOM folder of a CT")
    parser.add_argument("--range", default="all", help="slices to choose from, such as 100:164")
    parser.add_argument("--slices", type=int, default=16, help="evenly spaced slices that are kept")
    parser.add_argument("--tokens", type=float, default=0.2, help="share of each kept slice's tokens; 1 for all")
    parser.add_argument("--divisor", type=int, default=4, help="of the depth")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seconds: dict[str, list[float]] = {"first": [], "second": [], "next day, first": [], "next day, second": []}
    with tempfile.TemporaryDirectory() as name:
        checkpoint = build(Path(name) / "model", arguments.divisor, getattr(torch, arguments.dtype), device)
        Day(checkpoint, Path(name) / "warm", arguments).ask(QUESTIONS[0])
        for number in range(arguments.rounds):
            day = Day(checkpoint, Path(name) / f"cache{number}", arguments)
            spent, (study, first) = day.ask(QUESTIONS[0])
            seconds["first"].append(spent)
            spent, (_, second) = day.ask(QUESTIONS[1])
            seconds["second"].append(spent)
            assert second.reused_tokens > 0
            day = Day(checkpoint, Path(name) / f"cache{number}", arguments)
            spent, (again, _) = day.ask(QUESTIONS[2])
            assert again.record.seconds == {}
            seconds["next day, first"].append(spent)
            seconds["next day, second"].append(day.ask(QUESTIONS[0])[0])
        size = sum(path.stat().st_size for path in (Path(name) / "cache0").glob("*.safetensors"))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, CPU"
    print(
        f"Qwen3-VL-2B width, depth / {arguments.divisor}, random weights, {arguments.dtype}, {where}, "
        f"{torch.get_num_threads()} thread(s), torch {torch.__version__}"
    )
    print(
        f"{len(study.record.slice_indices)} of {study.record.total_slices} slices, {sum(study.record.kept_tokens)} "
        f"visual tokens, prompt of {first.prompt_tokens}; the study's file has {size / 1e6:.2f} MB"
    )
    print("first question: " + ", ".join(f"{name} {spent:.2f} s" for name, spent in study.record.seconds.items()))
    print("| question, from the file to the first token | seconds | share of the first |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.3f} | {median / medians['first']:.1%} |")
    if arguments.json:
        found = {"settings": {**vars(arguments), "json": None}, "where": where, "seconds": seconds}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
