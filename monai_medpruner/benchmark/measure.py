# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Measure configurations of a model in turns: seconds and CPU seconds, peak memory, operations."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import psutil
import torch

from monai_medpruner.benchmark.configurations import UNPRUNED, Configuration, Pipeline
from monai_medpruner.benchmark.flops import decode_flops, encoder_flops, prefill_flops, scoring_flops
from monai_medpruner.benchmark.models import BenchmarkModel
from monai_medpruner.benchmark.peak_memory import PeakMemory
from monai_medpruner.benchmark.shapes import ShapeCheckpoint
from monai_medpruner.errors import SettingsError
from monai_medpruner.results import Answer, StageTimes, StudyRecord
from monai_medpruner.results.versions import package_versions

__all__ = ["BENCHMARK_STAGES", "MeasuredRun", "machine", "measure", "run_once"]

#: the stages of a question, in order
BENCHMARK_STAGES = ("load", "filter", "preprocess", "encode", "select", "prefill", "decode")
_QUESTION = "Is there a pleural effusion?"


@dataclass(frozen=True)
class MeasuredRun:
    """One question about one image, from the file to the answer.

    Args:
        seconds: per stage.
        first_token_s: seconds from the file to the first token, with what no stage counts.
        cpu_s: CPU seconds of all threads, from the file to the end of the answer.
        peak_bytes: peak memory beyond what was allocated before, the weights among it.
        record: what was kept.
        answer: of the language model.
    """

    seconds: Mapping[str, float]
    first_token_s: float
    cpu_s: float
    peak_bytes: int
    record: StudyRecord
    answer: Answer


def run_once(pipeline: Pipeline, image: str | Path, question: str = _QUESTION) -> MeasuredRun:
    """Ask one question about an image, and measure it.

    Args:
        pipeline: of a configuration.
        image: as ``medpruner ask`` takes it.
        question: plain text.
    """
    device = pipeline.encoder.checkpoint.model.device  # loads the weights
    pipeline.encoder.spent.clear()
    with PeakMemory(device) as peak:
        cpu, start = process_time(), perf_counter()
        study = pipeline.network.encode(pipeline.load(image))
        study = pipeline.network.for_question(study, question)
        answer = pipeline.network.answer(study, question)
        spent, cpu = perf_counter() - start, process_time() - cpu
    seconds = StageTimes(study.record.seconds)
    seconds.add(answer.seconds)
    images = pipeline.encoder.spent.get("preprocess", 0.0)
    # the encoder's stage begins with the image processor
    seconds.add({"preprocess": images, "encode": -images})
    ordered = {stage: seconds.get(stage, 0.0) for stage in BENCHMARK_STAGES}
    return MeasuredRun(ordered, spent - ordered["decode"], cpu, peak.bytes, study.record, answer)


def measure(
    model: BenchmarkModel,
    configurations: Sequence[Configuration],
    image: str | Path,
    *,
    question: str = _QUESTION,
    repeats: int = 3,
    at_most_s: float = 60.0,
    max_new_tokens: int = 1,
    further: Mapping[str, Any] | None = None,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Measure configurations in turns, and the unpruned one beside them.

    Args:
        model: to measure.
        configurations: besides :data:`~.configurations.UNPRUNED`, which comes first.
        image: as ``medpruner ask`` takes it.
        question: plain text.
        repeats: at most as many runs of each configuration.
        at_most_s: a configuration is not repeated once its runs took so many seconds.
        max_new_tokens: length of the answers; with 1, CPU time ends at the first token.
        further: overrides of the bundle's configuration for all runs, such as a range of slices.
        progress: called with a line for each run.

    Returns:
        JSON values: the model, the machine, and a row for each configuration.

    Raises:
        SettingsError: ``repeats`` is not positive, two configurations have the same name, or a setting is invalid.
    """
    if repeats < 1:
        raise SettingsError(f"repeats must be at least 1, got {repeats}")
    every = [UNPRUNED, *configurations]
    names = [one.name for one in every]
    if len(set(names)) != len(names):
        raise SettingsError(f"configurations must have different names, got {', '.join(names)}")
    pipelines = {one.name: Pipeline(model, one, max_new_tokens, further) for one in every}
    # two slices warm up
    run_once(Pipeline(model, UNPRUNED, max_new_tokens, {**(further or {}), "max_slices": 2}), image, question)
    runs: dict[str, list[MeasuredRun]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, pipeline in pipelines.items():
            if sum(one.first_token_s for one in runs[name]) < at_most_s:
                runs[name].append(run_once(pipeline, image, question))
                progress(f"{model.name}, {name}: {runs[name][-1].first_token_s:.2f} s to the first token")
    rows = list(_rows(model, every, runs))
    return {
        "model": {
            "name": model.name,
            "depth": model.depth,
            "said": list(model.said),
            **model.checkpoint.describe(),
            "weights_bytes": sum(one.nbytes for one in model.checkpoint.model.parameters()),
        },
        "machine": machine(model.checkpoint.model.device),
        "image": {"slices": runs["unpruned"][0].record.total_slices, "shape": list(_shape(runs["unpruned"][0]))},
        "max_new_tokens": max_new_tokens,
        "rows": rows,
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers were measured on, without the machine's name.

    Args:
        device: of the model.
    """
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "system": platform.system(),
        "versions": package_versions(),
    }


def _shape(run: MeasuredRun) -> tuple[int, int, int]:
    geometry = run.record.geometry
    return geometry.shape


def _rows(
    model: BenchmarkModel, configurations: Sequence[Configuration], runs: Mapping[str, Sequence[MeasuredRun]]
) -> Iterator[dict[str, Any]]:
    base: dict[str, Any] | None = None
    for configuration in configurations:
        own = runs[configuration.name]
        record, answer = own[0].record, own[0].answer
        row: dict[str, Any] = {
            **configuration.described(),
            "repeats": len(own),
            "slices": len(record.slices),
            "visual_tokens": sum(record.kept_tokens),
            "unpruned_tokens": record.unpruned_tokens,
            "prompt_tokens": answer.prompt_tokens,
            "new_tokens": answer.new_tokens,
            "seconds": {stage: statistics.median(one.seconds[stage] for one in own) for stage in BENCHMARK_STAGES},
            "first_token_s": statistics.median(one.first_token_s for one in own),
            "first_token_s_all": [one.first_token_s for one in own],
            "cpu_s": statistics.median(one.cpu_s for one in own),
            "peak_bytes": max(one.peak_bytes for one in own),
            "flops": _flops(model, own[0], model.checkpoint.model.config),
            "published_flops": _flops(model, own[0], _published(model)),
        }
        base = base or row
        row["ratios"] = {
            "first_token": base["first_token_s"] / row["first_token_s"],
            "cpu": base["cpu_s"] / row["cpu_s"],
            **{name: _to_first_token(base[name]) / _to_first_token(row[name]) for name in ("flops", "published_flops")},
            "peak_memory": row["peak_bytes"] / max(base["peak_bytes"], 1),
        }
        yield row


def _to_first_token(flops: Mapping[str, int]) -> int:
    return flops["encode"] + flops["select"] + flops["prefill"]


def _published(model: BenchmarkModel) -> Any:
    """The configuration at full depth."""
    if isinstance(model.checkpoint, ShapeCheckpoint):
        return model.checkpoint.published_config
    return model.checkpoint.model.config


def _flops(model: BenchmarkModel, run: MeasuredRun, config: Any) -> dict[str, int]:
    """Operations per stage; those of scoring where the pruner asks for received attention."""
    family = model.checkpoint.family
    patches = [rows * columns * family.patches_per_token for rows, columns in (one.grid for one in run.record.slices)]
    scored = any(one.importance is not None for one in run.record.slices)
    return {
        "encode": sum(encoder_flops(config, count) for count in patches),
        "select": sum(scoring_flops(config, count) for count in patches) if scored else 0,
        "prefill": prefill_flops(config, run.answer.prompt_tokens),
        "decode": decode_flops(config, run.answer.prompt_tokens, run.answer.new_tokens),
    }
