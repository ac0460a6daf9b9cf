# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Measure what scoring, selecting and merging cost beside the encoder, at the encoders' true depth and width.

The weights are random, because the time depends on shapes alone. The language model is left out, and the slices are
few: both times grow with their number alike. Times are medians: of CPU time on a CPU, so that other processes on the
machine hardly matter, of elapsed time on a GPU. Encoder and selection take turns. The floor is what scoring needs in
floating-point operations, as a share of the encoder's: queries and keys of the scoring layer, and their product.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from monai_medpruner.networks.block_signals import block_signals, capture_blocks
from monai_medpruner.networks.encoding import prune_scored
from monai_medpruner.networks.families import ModelFamily, family_class
from monai_medpruner.networks.packed_attention import packed_attention
from monai_medpruner.networks.scored_slices import ScoredSlices
from monai_medpruner.pruners import (
    AveragePoolingPruner,
    BlockSignal,
    CDPrunerPruner,
    DivPrunePruner,
    HiPrunePruner,
    NucleusPruner,
    RandomTokensPruner,
    ReceivedAttention,
    TokenPruner,
    VisionZipPruner,
)
from monai_medpruner.testing.tiny_models import tiny_model

PRUNERS: dict[str, TokenPruner] = {
    "nucleus": NucleusPruner(),
    "nucleus, volume": NucleusPruner(scope="volume"),
    "visionzip": VisionZipPruner(keep_ratio=0.1),
    "hiprune": HiPrunePruner(keep_ratio=0.1),
    "divprune": DivPrunePruner(keep_ratio=0.1),
    "cdpruner": CDPrunerPruner(keep_ratio=0.1),
    "random tokens": RandomTokensPruner(keep_ratio=0.1),
    "average pooling": AveragePoolingPruner(),
}


@dataclass(frozen=True)
class Shape:
    """A vision encoder's dimensions.

    Args:
        name: of the model that has them.
        model_type: of its configuration.
        vision: of the encoder.
        projected: channels of a projected token.
        projector: weights that a patch meets after the encoder.
    """

    name: str
    model_type: str
    vision: dict[str, Any]
    projected: int
    projector: int
    width: int = 1152
    inner: int = 4304
    depth: int = 27

    def encoder_flops(self, patches: int) -> float:
        """Floating-point operations of the encoder and the projector for one slice."""
        block = patches * (8 * self.width**2 + 4 * self.width * self.inner) + 4 * patches**2 * self.width
        return self.depth * block + 2 * patches * self.projector

    def scoring_flops(self, patches: int) -> float:
        """Of queries, keys and their product in one block."""
        return 4 * patches * self.width**2 + 2 * patches**2 * self.width


SHAPES = {
    # four mergers, the DeepStack layers' among them: 4,608 x 4,608 and 4,608 x 4,096 for four patches
    "qwen3-vl-8b": Shape(
        "Qwen3-VL-8B",
        "qwen3_vl",
        {
            "depth": 27,
            "hidden_size": 1152,
            "num_heads": 16,
            "intermediate_size": 4304,
            "patch_size": 16,
            "out_hidden_size": 4096,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        projected=4096,
        projector=4608 * (4608 + 4096),
    ),
    # one projection for sixteen patches
    "gemma-3-4b": Shape(
        "Gemma 3 4B, MedGemma",
        "gemma3",
        {
            "hidden_size": 1152,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "intermediate_size": 4304,
            "patch_size": 14,
        },
        projected=2560,
        projector=1152 * 2560 // 16,
    ),
}


def build_family(shape: Shape, patches: int, dtype: torch.dtype, device: torch.device) -> ModelFamily:
    """The true encoder and projector before one small language layer; an image has that many patches."""
    tiny = tiny_model(shape.model_type)
    config = tiny.config(300, {name: 290 + index for index, name in enumerate(tiny.tokens)})
    values = config.to_dict()
    values["vision_config"] |= shape.vision
    values["text_config"] |= {"hidden_size": shape.projected, "num_hidden_layers": 1}
    values["text_config"].pop("layer_types", None)
    if shape.model_type == "gemma3":
        values["vision_config"]["image_size"] = round(patches**0.5) * shape.vision["patch_size"]
        values["mm_tokens_per_image"] = patches // 16
    with device:
        model = AutoModelForImageTextToText.from_config(type(config)(**values), dtype=dtype).eval()
    return family_class(shape.model_type)(model)


def image_inputs(shape: Shape, family: ModelFamily, patches: int, slices: int) -> dict[str, torch.Tensor]:
    """Random pixels of square slices."""
    side = round(patches**0.5)
    device, dtype = family.model.device, family.model.dtype
    if shape.model_type == "gemma3":
        size = side * shape.vision["patch_size"]
        return {"pixel_values": torch.randn(slices, 3, size, size, device=device, dtype=dtype)}
    values = 3 * 2 * shape.vision["patch_size"] ** 2
    return {
        "pixel_values": torch.randn(slices * patches, values, device=device, dtype=dtype),
        "image_grid_thw": torch.tensor([[1, side, side]] * slices, device=device),
    }


def timed(device: torch.device, work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result of some work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start, result


@torch.no_grad()
def measure(family: ModelFamily, inputs: dict[str, torch.Tensor], repeats: int) -> dict[str, list[float]]:
    """Seconds of the encoder, and of each pruner's scoring and selection."""
    device = family.model.device
    asked = {name: [one for one in pruner.signals if isinstance(one, BlockSignal)] for name, pruner in PRUNERS.items()}
    every = {signal for signals in asked.values() for signal in signals}
    grids = family.token_grids(inputs)
    seconds: dict[str, list[float]] = {"encoder": [], **{name: [] for name in PRUNERS}}
    question = torch.randn(20, family.model.get_input_embeddings().weight.shape[1], device=device)
    for _ in range(repeats):
        with capture_blocks(family, every) as captured, packed_attention(family.vision_configs):
            spent, encoded = timed(device, lambda: family.encode(inputs))
        seconds["encoder"].append(spent)
        for name, pruner in PRUNERS.items():

            def select(name: str = name, pruner: TokenPruner = pruner, encoded: Any = encoded) -> None:
                signals = block_signals(family, asked[name], captured, grids)
                scored = ScoredSlices(encoded, grids, family.patches_per_token, signals)
                prune_scored(family, pruner, scored, question)

            seconds[name].append(timed(device, select)[0])
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, nargs="+", default=list(SHAPES))
    parser.add_argument("--patches", type=int, nargs="+", default=[256, 1024, 4096], help="per slice, a square")
    parser.add_argument("--patches_at_once", type=int, default=4096, help="slices together have so many patches")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    cpu = f"{platform.machine()}, {torch.get_num_threads()} threads"
    machine = torch.cuda.get_device_name() if device.type == "cuda" else cpu
    print(f"random weights, {arguments.dtype}, {machine}, torch {torch.__version__}, {arguments.repeats} repeats\n")
    print("| encoder | patches | slices | pruner | encoder s | selection s | ratio | floor |")
    print("|---|---|---|---|---|---|---|---|")
    for shape in map(SHAPES.__getitem__, arguments.shape):
        for patches in arguments.patches:
            slices = max(arguments.patches_at_once // patches, 1)
            family = build_family(shape, patches, getattr(torch, arguments.dtype), device)
            seconds = measure(family, image_inputs(shape, family, patches, slices), arguments.repeats)
            encoder = statistics.median(seconds["encoder"])
            for name, pruner in PRUNERS.items():
                spent = statistics.median(seconds[name])
                scored = sum(isinstance(signal, ReceivedAttention) for signal in pruner.signals)
                floor = scored * shape.scoring_flops(patches) / shape.encoder_flops(patches)
                row = [shape.name, patches, slices, name, f"{encoder:.2f}", f"{spent:.4f}"]
                print("| " + " | ".join(map(str, row)) + f" | {spent / encoder:.2%} | {floor:.2%} |", flush=True)


if __name__ == "__main__":
    main()
