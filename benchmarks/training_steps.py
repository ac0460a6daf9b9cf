# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Seconds of the small models' training steps as they are and as they would be without what was done for speed.

First stage: bfloat16 and plain attention against float32 and PyTorch's own choice. Second stage: four questions that
share a volume's tokens against four prompts. Each pair is timed in turn; the ratio of the medians counts.
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
from monai_medpruner.networks import VolumeQA
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
    """That of the bundle, without its checks."""
    windows = IntensityWindowsd("image", windows=[[-160, 340]])
    return dict(windows(SlicePlaned(["image", "organs", "lesion"])(data)))


def ratio(name: str, now: Callable[[], None], before: Callable[[], None], repeats: int) -> None:
    """Print the median seconds of two steps, taken in turn."""
    spent: dict[Callable[[], None], list[float]] = {now: [], before: []}
    for number in range(repeats + 1):
        for step, seconds in spent.items():
            start = perf_counter()
            step()
            if number:  # the first is a warm-up
                seconds.append(perf_counter() - start)
    first, second = (median(seconds) for seconds in spent.values())
    print(f"{name}: {first:.2f} s, before {second:.2f} s, ratio {second / first:.1f}")


def time_warm_up(family: str, network: VisionWarmUp, repeats: int) -> None:
    """A step of 48 slices."""
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


def time_answers(family: str, asked: VolumeQA, network: VisionWarmUp, repeats: int) -> None:
    """A step on half of the slices and a fifth of their tokens: as many questions, four a volume and one a volume."""
    phantom = training_phantom(generate_phantom(1, PRESETS["small"]), preprocessing, TOKEN_PIXELS)
    encoded = encode_phantoms(network, [phantom])
    shares = {"least_slices": 0.5, "first_slices": 0.5, "short_epochs": 1, "growing_epochs": 1, "min_tokens": 0.2}
    shares |= {"most_tokens": 0.2, "whole_share": 0.0, "whole_size": 1, "most_suspects": 0, "steps": 1, "seed": 0}
    shared = AnswerBatches(asked, encoded, VOLUMES, QUESTIONS, **shares)[0]
    single = AnswerBatches(asked, encoded, VOLUMES * QUESTIONS, 1, **shares)[0]
    trained = AnswerNetwork(asked).train()
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
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each kind. Default: 5")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for family in options.families:
        with tempfile.TemporaryDirectory() as folder:
            asked = untrained_network(family, folder, device="cpu")
            network = VisionWarmUp(asked)
            time_warm_up(family, network, options.repeats)
            time_answers(family, asked, network, options.repeats)


if __name__ == "__main__":
    main()
