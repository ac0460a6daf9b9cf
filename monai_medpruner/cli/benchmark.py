# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner benchmark``: time, memory and operations of pruning against no pruning."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

from monai_medpruner.errors import SettingsError

SUMMARY = "Measure time, peak memory and operations of pruning, stage by stage, against no pruning in the same run."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--model",
        nargs="+",
        default=["tiny"],
        help="tiny, phantom:qwen3_vl, phantom:gemma3, phantom:video_llama_3, or the shape of a published model with "
        "random weights: shape:qwen3-vl-8b, shape:medgemma-1.5-4b, shape:hulu-med-7b; one or more. Default: tiny",
    )
    parser.add_argument("--depth", default="1", help="share of a shape's layers, such as 1/9. Default: 1")
    parser.add_argument("--image", help="NIfTI file or DICOM folder. Default: a CT phantom")
    parser.add_argument("--slices", help="range of slices such as 100:164, counted from 0. Default: all")
    parser.add_argument("--presets", nargs="*", default=None, help="presets. Default without other choices: all")
    parser.add_argument("--pruners", nargs="+", default=[], help="token pruners; combined with the next three")
    parser.add_argument("--budgets", nargs="+", type=float, default=[], help="shares of the volume's tokens")
    parser.add_argument("--slice_counts", nargs="+", type=int, default=[], help="numbers of slices")
    parser.add_argument("--slice_rules", nargs="+", default=[], help="slice rules that choose the slices")
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        metavar="'NAME: SETTING=VALUE ...'",
        help="further configurations from any settings of medpruner ask, and rule and rule_slices for a slice rule",
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each configuration, in turns. Default: 3")
    parser.add_argument(
        "--at_most_s",
        type=float,
        default=60.0,
        help="no repeat after so many seconds of one configuration. Default: 60",
    )
    parser.add_argument("--new_tokens", type=int, default=8, help="tokens of each answer. Default: 8")
    parser.add_argument("--device", help="Default: the first GPU where there is one, else the CPU")
    parser.add_argument("--dtype", help="of the weights. Default: bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--output_dir", type=Path, help="folder for benchmark.json, benchmark.md and benchmark.png")


def run(arguments: argparse.Namespace) -> None:
    """Measure, and write a table for each model to standard output.

    Raises:
        MedPrunerError: a model, a configuration or the image is invalid.
    """
    from monai_medpruner.benchmark import (
        Configuration,
        benchmark_model,
        benchmark_table,
        configuration_of_text,
        machine_text,
        measure,
        model_text,
        product_of,
    )
    from monai_medpruner.settings import preset_names

    further = {} if arguments.slices is None else {"slices": arguments.slices}
    results = []
    with _image(arguments.image) as image:
        for name in arguments.model:
            depth = _share(arguments.depth) if name.startswith("shape:") else 1.0
            model = benchmark_model(name, depth, device=arguments.device, dtype=arguments.dtype)
            combined = list(
                product_of(arguments.pruners, arguments.budgets, arguments.slice_counts, arguments.slice_rules)
            )
            also = [configuration_of_text(text, model.bundle) for text in arguments.also]
            presets = arguments.presets
            if presets is None:
                presets = [] if combined or also else preset_names(model.bundle)
            measured = measure(
                model,
                [*(Configuration(one, {"preset": one}) for one in presets), *combined, *also],
                image,
                repeats=arguments.repeats,
                at_most_s=arguments.at_most_s,
                max_new_tokens=arguments.new_tokens,
                further=further,
                progress=lambda line: sys.stderr.write(f"{line}\n"),
            )
            results.append(measured)
            sys.stdout.write(f"{model_text(measured)}\n\n{benchmark_table(measured)}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{machine_text(results[0]['machine'])}\n")
    if arguments.output_dir is not None:
        _write(results, arguments.output_dir)


@contextmanager
def _image(path: str | None) -> Iterator[str]:
    """Yield the image's path, or that of a CT phantom."""
    if path is not None:
        yield path
        return
    from monai_medpruner.data.phantom import PRESETS, phantom_command

    with tempfile.TemporaryDirectory() as folder:
        phantom_command(1, 0, Path(folder) / "phantom", PRESETS["default"])
        (volume,) = (Path(folder) / "phantom" / "volumes").glob("*.nii.gz")
        yield str(volume)


def _share(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise SettingsError(f"--depth must be a share such as 1/9 or 0.25, got {text!r}") from error


def _write(results: list, folder: Path) -> None:
    import json

    from monai_medpruner.benchmark import benchmark_plot, benchmark_table, machine_text, model_text

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    parts = [f"{model_text(one)}\n\n{benchmark_table(one)}\n{machine_text(one['machine'])}\n" for one in results]
    (folder / "benchmark.md").write_text("\n".join(parts), encoding="utf-8")
    benchmark_plot(results).savefig(folder / "benchmark.png", dpi=150)
