# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Time the anchor filter, relative to one ``sum()`` over the same volume and to a plain loop.

The volume is float32 with the slice axis contiguous in memory, the layout in which a plain loop is slowest.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from monai_medpruner.transforms.anchor_rule import anchor_slices, guarded_slices

GUARD_BLOCK, GUARD_THRESHOLD = (36, 36), 0.35  # 25 mm of 0.7 mm pixels


def plain_loop(volume: torch.Tensor, gamma: float) -> list[int]:
    """Direct implementation of Eq. 2."""
    kept = [0]
    for index in range(1, volume.shape[-1]):
        if (volume[..., index].double() - volume[..., kept[-1]].double()).abs().mean() > gamma:
            kept.append(index)
    return kept


def smooth(shape: list[int]) -> torch.Tensor:
    """Blobs that change slowly from slice to slice, with noise, similar to a windowed CT."""
    coarse = torch.rand(1, 1, 12, 12, max(2, shape[2] // 6))
    volume = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0]
    return volume.add_(torch.randn(volume.shape), alpha=0.01).contiguous()


def staircase(shape: list[int]) -> torch.Tensor:
    """Each slice is 0.25 above the previous one."""
    return (torch.arange(shape[2]) * 0.25).expand(1, *shape).contiguous()


def uniform(shape: list[int]) -> torch.Tensor:
    """Independent voxels in [0, 1]; the mean difference of any two slices is 1/3, within about 0.001."""
    return torch.rand(1, *shape)


PATTERNS: list[tuple[str, Callable[[list[int]], torch.Tensor], float]] = [
    ("smooth, CT-like", smooth, 0.025),
    ("every slice kept", uniform, 0.025),
    ("only the first slice kept", uniform, 0.5),
    ("adversarial: distances around gamma", uniform, 1 / 3),
    ("adversarial: every step equals gamma", staircase, 0.25),
]


def fastest(run: Callable[[], object], repeats: int) -> float:
    """Return the shortest processor time of several runs in seconds; processor time excludes waiting."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def processor() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 512, 300], metavar=("H", "W", "D"))
    parser.add_argument("--threads", type=int, default=1, help="number of threads for all measurements (default: 1)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="number of runs, of which the fastest counts (default: 5)"
    )
    parser.add_argument("--plain-loop", action="store_true", help="also time the plain loop, once per pattern (slow)")
    parser.add_argument("--guard", action="store_true", help="also time the guard for small lesions, once per pattern")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"{platform.platform()}, {processor()}, torch {torch.__version__}, numpy {np.__version__}")
    print(f"volume {arguments.shape} float32, depth last, {arguments.threads} thread(s)")
    for name, make, gamma in PATTERNS:
        volume = make(arguments.shape)
        total = fastest(volume.sum, 3 * arguments.repeats)
        seconds = fastest(lambda: anchor_slices(volume, -1, gamma), arguments.repeats)  # noqa: B023 - called at once
        kept = len(anchor_slices(volume, -1, gamma).kept)
        line = f"{name:38s} kept {kept:4d}  sum {total:.4f} s  filter {seconds:.4f} s  ratio {seconds / total:6.1f}"
        if arguments.plain_loop:
            loop = fastest(lambda: plain_loop(volume, gamma), 1)  # noqa: B023 - called at once
            line += f"  plain loop {loop:.2f} s  ratio {loop / total:6.1f}"
        if arguments.guard:
            guard = fastest(lambda: guarded_slices(volume, -1, gamma, GUARD_BLOCK, GUARD_THRESHOLD), 1)  # noqa: B023
            line += f"  with guard {guard:.2f} s  ratio {guard / total:6.1f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
