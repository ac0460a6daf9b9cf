# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Time the training steps of the small models with and without the speed optimizations.

First stage: bfloat16 and unfused attention, compared with float32 and PyTorch's default attention. Second stage: four
questions that share the tokens of a volume, compared with four separate prompts. Runs alternate between the two; the
result is the ratio of medians.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable
from statistics import median
from time import perf_counter
from unittest.mock import patch

import torch

from monai_medpruner.data.phantom import PRESETS, generate_phantom
from monai_medpruner.engines import VolumeQA
from monai_medpruner.training import (
    TOKEN_PIXELS,
    AnswerBatches,
    AnswerLoss,
    AnswerNetwork,
    VisionWarmUp,
    encode_phantoms,
    training_phantom,
    untrained_network,
    vision_warm_up,
)
from monai_medpruner.transforms import IntensityWindowsd, SlicePlaned

FAMILIES = ("qwen3_vl", "gemma3", "video_llama_3")
VOLUMES, QUESTIONS = 4, 4


def preprocessing(data: dict) -> dict:
    """Preprocessing of the bundle without its checks."""
    windows = IntensityWindowsd("image", windows=[[-160, 340]])
    return dict(windows(SlicePlaned(["image", "organs", "lesion"])(data)))


def ratio(name: str, optimized: Callable[[], None], baseline: Callable[[], None], repeats: int) -> None:
    """Print the median seconds of two steps, timed alternately."""
    spent: dict[Callable[[], None], list[float]] = {optimized: [], baseline: []}
    for number in range(repeats + 1):
        for step, seconds in spent.items():
            start = perf_counter()
            step()
            if number:  # the first run is a warm-up
                seconds.append(perf_counter() - start)
    first, second = (median(seconds) for seconds in spent.values())
    print(f"{name}: {first:.2f} s, baseline {second:.2f} s, ratio {second / first:.1f}")


def time_warm_up(family: str, network: VisionWarmUp, repeats: int) -> None:
    """Time a step with 48 slices."""
    image = torch.randint(0, 256, (48, 96, 96), dtype=torch.uint8)

    def step() -> None:
        sum(logits.square().mean() for logits in network(image).values()).backward()

    def plain_step() -> None:
        with (
            patch.object(vision_warm_up, "sdpa_kernel", lambda _: contextlib.nullcontext()),
            patch.object(torch, "autocast", lambda *_: contextlib.nullcontext()),
        ):
            step()

    ratio(f"{family}, warm-up", step, plain_step, repeats)


def time_answers(family: str, model: VolumeQA, network: VisionWarmUp, repeats: int) -> None:
    """Time a step with half of the slices and a fifth of their tokens: four questions per volume, or one."""
    phantom = training_phantom(generate_phantom(1, PRESETS["small"]), preprocessing, TOKEN_PIXELS)
    encoded = encode_phantoms(network, [phantom])
    shares = {"min_slices": 0.5, "initial_max_slices": 0.5, "initial_epochs": 1, "growth_epochs": 1, "min_tokens": 0.2}
    shares |= {"max_tokens": 0.2, "full_fraction": 0.0, "full_batch_size": 1, "max_hard_negatives": 0}
    shares |= {"steps": 1, "seed": 0}
    shared = AnswerBatches(model, encoded, VOLUMES, QUESTIONS, **shares)[0]
    single = AnswerBatches(model, encoded, VOLUMES * QUESTIONS, 1, **shares)[0]
    trained = AnswerNetwork(model).train()
    ratio(
        f"{family}, answers",
        lambda: AnswerLoss()(trained(shared)).backward(),
        lambda: AnswerLoss()(trained(single)).backward(),
        repeats,
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--repeats", type=int, default=5, help="number of timed steps per configuration (default: 5)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for family in options.families:
        with tempfile.TemporaryDirectory() as folder:
            model = untrained_network(family, folder, device="cpu")
            network = VisionWarmUp(model)
            time_warm_up(family, network, options.repeats)
            time_answers(family, model, network, options.repeats)


if __name__ == "__main__":
    main()
