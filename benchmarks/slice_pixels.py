# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""CPU time from a volume to the inputs of the vision encoder, fast and stock, in one process.

Both ways begin with the volume in memory and end with the tensors that the model takes; "processor" is the image
processor's part of the stock way alone. The ways take turns. Prints a Markdown table of medians, a slice.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import PIL
import torch
import transformers
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from monai_medpruner.networks.fast_images import fast_image_inputs
from monai_medpruner.networks.slice_images import slice_images

HALF: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
# the settings of the published checkpoints
GEMMA3 = Gemma3ImageProcessorPil(size={"height": 896, "width": 896}, do_pan_and_scan=False, **HALF)
QWEN3_VL = Qwen2VLImageProcessorPil(patch_size=16, size={"shortest_edge": 65536, "longest_edge": 16777216}, **HALF)
QWEN2_5_VL = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 12845056})
HULU_MED = VideoLlama3ImageProcessorPil(merge_size=2, size={"shortest_edge": 12544, "longest_edge": 12845056}, **HALF)
CASES: tuple[tuple[str, Any, int, int, dict[str, Any]], ...] = (
    ("Gemma 3, 896², three windows", GEMMA3, 3, 512, {}),
    ("Gemma 3, 896², one window", GEMMA3, 1, 512, {}),
    ("Qwen3-VL, 512², one window", QWEN3_VL, 1, 512, {}),
    ("Qwen3-VL, 512², three windows", QWEN3_VL, 3, 512, {}),
    ("Qwen2.5-VL, 504², one window", QWEN2_5_VL, 1, 512, {}),
    (
        "Hulu-Med, 224², one window (256 × 64 tokens)",
        HULU_MED,
        1,
        512,
        {"size": {"shortest_edge": 12544, "longest_edge": 64 * 784}},
    ),
)


def cpu_seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--depth_last", action="store_true", help="slices along the fastest axis in memory")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"{platform.platform()}, torch {torch.__version__}, transformers {transformers.__version__}", end=", ")
    print(f"Pillow {PIL.__version__}; {arguments.slices} slices, {arguments.threads} thread(s)\n")
    print("| case | stock, ms | processor, ms | fast, ms | fast / stock | fast / processor | equal |")
    print("|---|---|---|---|---|---|---|")
    for name, processor, channels, edge, size in CASES:
        volume = torch.rand(channels, arguments.slices, edge, edge).permute(0, 2, 3, 1)
        if arguments.depth_last:
            volume = volume.contiguous()
        seconds: dict[str, list[float]] = {"stock": [], "processor": [], "fast": []}
        for _ in range(arguments.repeats + 1):
            converted, images = cpu_seconds(lambda: slice_images(volume))  # noqa: B023 - called at once
            call = lambda: processor(images=images, return_tensors="pt", **size)  # noqa: B023, E731
            processed, expected = cpu_seconds(call)
            fast, inputs = cpu_seconds(lambda: fast_image_inputs(processor, volume, torch.device("cpu"), **size))  # noqa: B023
            for kind, one in zip(seconds, (converted + processed, processed, fast), strict=True):
                seconds[kind].append(one * 1e3 / arguments.slices)
        stock, alone, ours = (statistics.median(one[1:]) for one in seconds.values())  # the first call warms up
        equal = all(torch.equal(inputs[key], expected[key]) for key in expected)
        row = f"{stock:.1f} | {alone:.1f} | {ours:.1f} | {ours / stock:.2f} | {ours / alone:.2f}"
        print(f"| {name} | {row} | {'bit for bit' if equal else 'no'} |", flush=True)


if __name__ == "__main__":
    main()
