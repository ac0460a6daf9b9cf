# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Fill the table of docs/performance.md: what pruning saves, as ratios to no pruning in one run.

    python benchmarks/performance.py ../shared/data/ct_full/s0024.nii.gz
    python benchmarks/performance.py --page docs/performance.md

The first command measures and writes a JSON file, the second writes the page from the files. Input are 64 consecutive
slices of a full-size CT. The shapes are those of published models, with random weights and a part of their layers; see
``medpruner benchmark``. Parts:

- shapes: from the file to the first token, for each model and configuration
- second: the second question about a study
- scaling: load to select, 50 to 2,000 slices
- accuracy: right answers of the baselines on phantoms, which says what the best baseline is
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import nibabel
import numpy as np
import torch
from performance_page import GEMMA, QWEN, page

from monai_medpruner.benchmark import (
    UNPRUNED,
    Configuration,
    Pipeline,
    benchmark_model,
    benchmark_table,
    machine,
    measure,
)
from monai_medpruner.benchmark.models import BenchmarkModel
from monai_medpruner.benchmark.peak_memory import PeakMemory
from monai_medpruner.bundles import open_bundle
from monai_medpruner.data.phantom import PRESETS, phantom_command
from monai_medpruner.memory import release_memory
from monai_medpruner.pruners import pruner_names
from monai_medpruner.settings import bundle_folders, settings
from monai_medpruner.transforms.slice_rules import AnchorRule, SliceStack, select_slice_rule, slice_rule_settings

RESULTS = Path(__file__).resolve().parent / "results"
PARTS = ("accuracy", "shapes", "second", "scaling")
MODELS = (QWEN, GEMMA)
#: on a CPU; encoder and language model of MedGemma have one layer each, so that a run takes minutes and not hours
DEPTHS = {QWEN: "1/9", GEMMA: "1/27", "shape:hulu-med-7b": "1/27"}
SLICES, FIRST_SLICE = 64, 200
RETENTION = 0.05
FAST = Configuration("fast", {"preset": "fast"})
RARE = Configuration("fast, rare tokens", {"preset": "fast", "pruner": "rare_tokens"})
CONTRAST = Configuration("fast, local contrast", {"preset": "fast", "pruner": "local_contrast"})
CROPPED = Configuration("fast, crop", {"preset": "fast", "crop": "body"})
RELEASED = "medpruner_released"
#: share of the slices, and of the tokens of each
RELEASED_SHARES = (0.25, 0.2)
QUESTIONS = ("Is there a pleural effusion?", "Which organ is enlarged, and by how much?", "Is the spleen normal?")
#: tokens of a phantom's slice
PHANTOM_TOKENS = 36
DEPTHS_OF_STACKS = (50, 200, 500, 1000, 2000)


def baselines(tokens: int, slices: int | None = None) -> list[Configuration]:
    """The baselines as their sources run them, without our slice selection, at the retention of the preset.

    Args:
        tokens: of a slice, of which pruners keep the nearest whole number, at least one.
        slices: of the volume, of which slice rules keep the nearest whole number; None leaves the rules out.
    """
    found = []
    for name in ("visionzip", "hiprune", "divprune", "cdpruner", "random_tokens"):
        given = {"gamma": None, "pruner": name, "token_pruner::keep_ratio": max(1, round(RETENTION * tokens)) / tokens}
        if name == "random_tokens":
            given["token_pruner::contextual_ratio"] = 0.0  # those of the others are among the kept tokens
        found.append(Configuration(name, given))
    for name in ("evs", "hulumed") if slices is not None else ():
        rule = slice_rule_settings(select_slice_rule(name))
        given = {"gamma": None, "pruner": "none"}
        found.append(Configuration(name, given, rule, max(1, round(RETENTION * slices))))
    return found


def cut(image: Path, folder: Path, first: int = FIRST_SLICE, count: int = SLICES) -> Path:
    """Write consecutive slices of a volume as a file of their own."""
    path = folder / "slices.nii.gz"
    nibabel.save(nibabel.load(image).slicer[:, :, first : first + count], path)
    return path


def released(volume: torch.Tensor, slice_tokens: int) -> list[Configuration]:
    """Our route and the released one with the same slices and tokens, the latter where it is registered.

    Args:
        volume: ``(C, H, W, D)``, intensities in [0, 1].
        slice_tokens: of a slice without pruning.
    """
    stack = SliceStack.from_volume(volume, 3)
    rule = AnchorRule().at_most(stack, int(RELEASED_SHARES[0] * stack.depth))
    kept = len(rule.choose(stack).kept)
    tokens = int(RELEASED_SHARES[1] * kept * slice_tokens)
    common = {"token_pruner::contextual_ratio": 0.0}  # a slice then keeps one token at least, as a dropped one does
    ours = {**common, "gamma": rule.threshold, "max_visual_tokens": tokens}
    theirs = {
        **common,
        "gamma": None,
        "slice_ratio": 1.0,
        "pruner": RELEASED,
        # γ is on [-1, 1] there, and each dropped slice leaves one token
        "token_pruner::threshold": 2 * rule.threshold,
        "max_visual_tokens": tokens + stack.depth - kept,
    }
    found = [Configuration("as released, ours", ours)]
    if RELEASED in pruner_names():
        found.append(Configuration("as released", theirs))
    return found


def on_shape(model: BenchmarkModel, image: Path, best: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a model: the preset, the released method, and the baseline that answered best."""
    unpruned = Pipeline(model, UNPRUNED)
    volume = unpruned.load(image)
    tokens = unpruned.encoder.unpruned_tokens(*volume.shape[1:3])
    further = [one for one in baselines(tokens, volume.shape[-1]) if one.name == best]
    given = [*released(volume, tokens), *further]
    if model.name != GEMMA:
        given.append(CROPPED)  # an encoder of images of one size gains nothing by it
    measured = measure(
        model,
        [*given, RARE, CONTRAST, FAST],
        image,
        repeats=arguments.repeats,
        at_most_s=arguments.at_most_s,
        progress=lambda line: print(line, flush=True),
    )
    print(benchmark_table(measured), flush=True)
    return measured


def second_question(model: BenchmarkModel, image: Path, repeats: int, at_most_s: float) -> dict[str, Any]:
    """Seconds before decoding of a first, a second and next day's question about one study."""
    cached = "cache_dir" in settings()
    seconds: dict[str, list[float]] = {"first": [], "second": []} | ({"next day": []} if cached else {})
    reused = []
    for _ in range(repeats):
        if sum(seconds["first"]) >= at_most_s:
            break
        with tempfile.TemporaryDirectory() as folder:
            further = {"cache_dir": folder} if cached else {}
            today = Pipeline(model, FAST, further=further)
            # the study of the first question is held until the last
            spent, study, _ = _ask(today, image, QUESTIONS[0])
            seconds["first"].append(spent)
            spent, study, answer = _ask(today, image, QUESTIONS[1], None if cached else study)
            seconds["second"].append(spent)
            reused.append(getattr(answer, "reused_tokens", 0))
            if cached:
                seconds["next day"].append(_ask(Pipeline(model, FAST, further=further), image, QUESTIONS[2])[0])
    return {
        "model": model.name,
        "cache": cached,
        "reused_tokens": reused[0],
        "prompt_tokens": answer.prompt_tokens,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "machine": machine(model.checkpoint.model.device),
    }


def _ask(pipeline: Pipeline, image: Path, question: str, study: Any = None) -> tuple[float, Any, Any]:
    pipeline.encoder.checkpoint.model  # noqa: B018 - loaded before the clock starts
    start = perf_counter()
    if study is None:
        study = pipeline.network.encode(pipeline.load(image))
    answer = pipeline.network.answer(study, question)
    return perf_counter() - start - answer.seconds["decode"], study, answer


def scaling(image: Path, folder: Path, device: torch.device) -> dict[str, Any]:
    """Load to select, for volumes of more and more slices: a CT, forward and backward in turns."""
    model = benchmark_model("tiny", device=device)
    pipeline = Pipeline(model, FAST)
    voxels = np.asarray(nibabel.load(image).dataobj, dtype=np.int16)
    affine = nibabel.load(image).affine
    there_and_back = np.concatenate([voxels, voxels[:, :, ::-1]], axis=2)
    rows = []
    for count in (DEPTHS_OF_STACKS[0], *DEPTHS_OF_STACKS):  # the first warms up
        places = np.arange(count) % there_and_back.shape[2]
        path = folder / f"stack{count}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(there_and_back[:, :, places], affine), path)
        runs: list[float] = []
        cpu: list[float] = []
        while len(runs) < 3 and sum(runs) < 10:
            with PeakMemory(model.checkpoint.model.device) as peak:
                used, start = process_time(), perf_counter()
                study = pipeline.network.encode(pipeline.load(path))
                runs.append(perf_counter() - start)
                cpu.append(process_time() - used)
        spent = statistics.median(runs)
        path.unlink()
        shape = (*there_and_back.shape[:2], count)
        rows.append(
            {
                "slices": count,
                "kept": len(study.record.slices),
                "seconds": spent,
                "cpu_s": statistics.median(cpu),
                "stages": dict(study.record.seconds),
                "peak_bytes": peak.bytes,
                "volume_bytes": 4 * int(np.prod(shape)),
            }
        )
        print(f"{count} slices: {spent:.2f} s, {peak.bytes / 1e9:.2f} GB", flush=True)
    rows = rows[1:]
    slopes = {
        name: float(np.polyfit(*np.log([(row["slices"], row[time]) for row in rows]).T, 1)[0])
        for name, time in (("slope", "seconds"), ("cpu_slope", "cpu_s"))
    }
    return {"model": model.name, "rows": rows, **slopes, "machine": machine(model.checkpoint.model.device)}


def accuracy(folder: Path, count: int, families: Sequence[str], device: str) -> dict[str, Any]:
    """Right answers to the closed questions about phantoms, for our presets and each baseline."""
    phantom_command(count, 1977, folder / "phantoms", PRESETS["small"])
    volumes = (folder / "phantoms" / "volumes").glob("*.nii.gz")
    slices = round(statistics.mean(min(nibabel.load(path).shape) for path in volumes))
    bundle = bundle_folders()["medpruner_phantom"]
    rows = []
    for family in families:
        for configuration in (UNPRUNED, FAST, *baselines(PHANTOM_TOKENS, slices)):
            overrides = {
                "dataset_dir": str(folder / "phantoms"),
                "output_dir": str(folder / f"{family}_{configuration.name}"),
                "task": "closed",
                "device": device,
                "family": family,
                **configuration.overrides(bundle),
            }
            start = perf_counter()
            (result,) = open_bundle(bundle, overrides, configs=("inference", "evaluate")).evaluator.run()
            metrics = result["metrics"]
            row = {
                "family": family,
                "name": configuration.name,
                "right": metrics["micro"]["accuracy"]["value"],
                "items": metrics["items"],
                "retention": metrics["retention"],
            }
            rows.append(row)
            print(f"{family}, {row['name']}: {row['right']:.1f} % in {perf_counter() - start:.0f} s", flush=True)
    return {"phantoms": count, "seed": 1977, "rows": rows}


def best_baseline(found: dict[str, Any]) -> str:
    """The baseline with the most right answers, as a mean over all families."""
    names = [name for name in dict.fromkeys(row["name"] for row in found["rows"]) if name not in ("unpruned", "fast")]
    means = {name: statistics.mean(row["right"] for row in found["rows"] if row["name"] == name) for name in names}
    return max(names, key=lambda name: means[name])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, nargs="?", help="full-size CT, a NIfTI file")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="others stay as they are in --out")
    parser.add_argument("--models", nargs="+", default=MODELS, help="with --parts, others stay as they are in --out")
    parser.add_argument("--depth", help="share of the layers of every model. Default on a CPU: " + str(DEPTHS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--at_most_s", type=float, default=15.0, help="no repeat after so many seconds")
    parser.add_argument("--phantoms", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/performance_DEVICE.json")
    parser.add_argument("--page", type=Path, help="write the page from the JSON files instead")
    arguments = parser.parse_args()
    if arguments.page:
        arguments.page.write_text(page(read_results()), encoding="utf-8")
        return
    if arguments.image is None:
        parser.error("an image is needed")
    torch.set_num_threads(arguments.threads)
    out = arguments.out or RESULTS / f"performance_{torch.device(arguments.device).type}.json"
    results = json.loads(out.read_text(encoding="utf-8")) if arguments.parts != PARTS and out.exists() else {}

    def save(part: dict[str, Any]) -> None:
        results.update({name: _with_other_models(results.get(name), found) for name, found in part.items()})
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = cut(arguments.image, folder)
        if "accuracy" in arguments.parts:
            save({"accuracy": accuracy(folder, arguments.phantoms, ("qwen3_vl", "gemma3"), arguments.device)})
        if {"shapes", "second"} & set(arguments.parts):
            if "accuracy" not in results:
                parser.error("the best baseline is not known: run the part accuracy, too")
            best = best_baseline(results["accuracy"])
            save({"best_baseline": best})
            on_models(image, best, arguments, save)
        if "scaling" in arguments.parts:
            save({"scaling": scaling(arguments.image, folder, torch.device(arguments.device))})


def on_models(image: Path, best: str, arguments: argparse.Namespace, save: Callable[[dict[str, Any]], object]) -> None:
    """Measure model by model, so that one model's weights are in memory at a time; what is there is saved each time."""
    found: dict[str, Any] = {part: [] for part in ("shapes", "second") if part in arguments.parts}
    for name in arguments.models:
        model = benchmark_model(name, _depth(arguments, name), device=arguments.device)
        if "shapes" in found:
            found["shapes"].append(on_shape(model, image, best, arguments))
            save(found)
        if "second" in found:
            found["second"].append(second_question(model, image, arguments.repeats, arguments.at_most_s))
            save(found)
        del model
        release_memory()


def _with_other_models(before: Any, found: Any) -> Any:
    """What was measured now, behind what an earlier run measured of other models."""
    if not isinstance(found, list) or before is None:
        return found
    measured = [_model_name(one) for one in found]
    return [one for one in before if _model_name(one) not in measured] + found


def _model_name(measured: dict[str, Any]) -> str:
    model = measured["model"]
    return model["name"] if isinstance(model, dict) else model


def _depth(arguments: argparse.Namespace, model: str) -> float:
    if not model.startswith("shape:"):
        return 1.0
    cpu = torch.device(arguments.device).type == "cpu"
    return float(Fraction(arguments.depth or (DEPTHS[model] if cpu else "1")))


def read_results() -> dict[str, Any]:
    """The measurements of each kind of device, "cpu" and "cuda", and those of "serving"."""
    found = {}
    for path in sorted(RESULTS.glob("performance_*.json")):
        found[path.stem.removeprefix("performance_")] = json.loads(path.read_text(encoding="utf-8"))
    serving = RESULTS / "vllm_serving.json"
    if serving.exists():
        found["serving"] = json.loads(serving.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    main()
