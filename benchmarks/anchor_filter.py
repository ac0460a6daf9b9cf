# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Time the anchor filter and the search for γ, relative to one ``sum()`` over the same volume; prints Markdown.

Real volumes go through loading, checks, slice plane and windows first; ``slice-major`` is the memory order that these
hand over, ``depth-last`` a copy with the slice axis contiguous. Patterns are float32 volumes in either order. Each
measurement is preceded by one of ``sum()``; ratios are those of the medians of processor time.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from monai.transforms import Compose

from monai_medpruner.transforms import CheckVolumed, IntensityWindowsd, LoadVolumed, SlicePlaned, anchor_rule

GAMMAS = (0.005, 0.0125, 0.025, 0.05, 0.075, 0.1)
SHARES = (0.05, 0.1, 0.25, 0.5)  # of the slices, as limits for the search
GUARD_BLOCK, GUARD_THRESHOLD = (36, 36), 0.35  # 25 mm of 0.7 mm pixels


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
    ("adversarial: distances around γ", uniform, 1 / 3),
    ("adversarial: every step equals γ", staircase, 0.25),
]


def load(path: str) -> torch.Tensor:
    """Return a volume as the pipeline hands it to the filter."""
    pipeline = Compose([LoadVolumed("image"), CheckVolumed("image"), SlicePlaned("image"), IntensityWindowsd("image")])
    return pipeline({"image": path})["image"].as_tensor()


def in_both_orders(volume: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """Return the volume with slices together in memory, and with the slice axis contiguous."""
    return [
        ("slice-major", volume.movedim(-1, 0).contiguous().movedim(0, -1)),
        ("depth-last", volume.contiguous()),
    ]


def compare(volume: torch.Tensor, runs: list[Callable[[], object]], repeats: int) -> tuple[float, list[float]]:
    """Return the median processor time in seconds of ``sum()``, and that of each of ``runs``."""
    sums: list[float] = []
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, taken in zip(runs, times, strict=True):
            start = time.process_time()
            volume.sum()
            between = time.process_time()
            run()
            sums.append(between - start)
            taken.append(time.process_time() - between)
    return statistics.median(sums), [statistics.median(taken) for taken in times]


def report(name: str, order: str, volume: torch.Tensor, gamma: float, options: argparse.Namespace) -> None:
    """Print the row of one volume and γ."""
    rules = [anchor_rule, *([options.before] if options.before else [])]
    runs: list[Callable[[], object]] = [partial(rule.anchor_slices, volume, -1, gamma) for rule in rules]
    if options.guard:
        runs.append(partial(anchor_rule.guarded_slices, volume, -1, gamma, GUARD_BLOCK, GUARD_THRESHOLD))
    total, times = compare(volume, runs, options.repeats)
    kept = len(anchor_rule.anchor_slices(volume, -1, gamma).kept)
    cells = [f"{1000 * times[0]:.1f}", *(f"{taken / total:.1f}" for taken in times)]
    print(f"| {name} | {order} | {gamma:.4g} | {kept} | {1000 * total:.2f} | {' | '.join(cells)} |", flush=True)


def report_search(name: str, volume: torch.Tensor, repeats: int) -> None:
    """Print the rows of the search for γ on one volume."""
    depth = volume.shape[-1]
    for most in [max(1, int(share * depth)) for share in SHARES]:
        total, (taken,) = compare(volume, [partial(anchor_rule.smallest_threshold, volume, -1, most)], repeats)
        gamma = anchor_rule.smallest_threshold(volume, -1, most)
        print(f"| {name} | {most} of {depth} | {gamma:.4g} | {1000 * taken:.1f} | {taken / total:.1f} |", flush=True)


def rule_from(path: str) -> ModuleType:
    """Import another version of ``anchor_rule.py``."""
    spec = importlib.util.spec_from_file_location("anchor_rule_before", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="*", help="NIfTI files or DICOM folders")
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 512, 300], metavar=("H", "W", "D"))
    parser.add_argument("--no-patterns", action="store_true", help="time the real volumes only")
    parser.add_argument("--threads", type=int, default=1, help="number of threads for all measurements (default: 1)")
    parser.add_argument("--repeats", type=int, default=5, help="number of runs of each measurement (default: 5)")
    parser.add_argument("--before", type=rule_from, metavar="FILE", help="an earlier anchor_rule.py, also timed")
    parser.add_argument("--guard", action="store_true", help="also time the guard for small lesions (slow)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    print(f"{system}, {processor()}, {options.threads} thread(s), torch {torch.__version__}, numpy {np.__version__}\n")
    loaded = [(Path(path).name, load(path)) for path in options.volumes]
    columns = ["volume", "memory order", "γ", "kept", "sum ms", "filter ms", "ratio"]
    columns += ["before"] * bool(options.before) + ["with guard"] * options.guard
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, volume in loaded:
        for order, ordered in in_both_orders(volume):
            for gamma in GAMMAS:
                report(name, order, ordered, gamma, options)
    for name, make, gamma in [] if options.no_patterns else PATTERNS:
        for order, ordered in in_both_orders(make(options.shape)):
            report(name, order, ordered, gamma, options)
    print("\n| search for γ in | at most | γ | ms | ratio |\n|---|---|---|---|---|")
    for name, volume in loaded:
        report_search(name, volume, options.repeats)


if __name__ == "__main__":
    main()
