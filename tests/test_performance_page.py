# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of the performance says what its committed results say, and its arithmetic is right."""

from __future__ import annotations

import importlib
from pathlib import Path

import nibabel
import numpy as np
import pytest

GEMMA, QWEN = "shape:medgemma-1.5-4b", "shape:qwen3-vl-8b"
STAGES = ("load", "filter", "preprocess", "encode", "select", "prefill", "decode")


@pytest.fixture
def benchmark(repository, monkeypatch):
    """Return a function: name of a benchmark -> its module."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    return importlib.import_module


def row(name, first_token_s, peak_bytes, load=1.0):
    return {
        "name": name,
        "slices": 10,
        "visual_tokens": 20,
        "seconds": {**dict.fromkeys(STAGES, 0.0), "load": load, "encode": first_token_s - load},
        "first_token_s": first_token_s,
        "cpu_s": 2 * first_token_s,
        "peak_bytes": peak_bytes,
        "flops": {"encode": int(1e9 * first_token_s), "select": 0, "prefill": 0, "decode": 0},
        "ratios": {"first_token": 1.0, "cpu": 1.0, "flops": 1.0, "published_flops": 1.0, "peak_memory": 1.0},
    }


def results(gpu=None):
    versions = {"torch": "2", "transformers": "5", "monai": "1"}
    machine = {"gpu": gpu, "cpu": "a CPU", "threads": 1, "cores": 2, "memory_gib": 4, "versions": versions}
    rows = [row("unpruned", 41, 100), row("as released", 30, 90), row("as released, ours", 9, 60),
            row("visionzip", 21, 120), row("fast, crop", 5, 50), row("fast", 11, 50)]  # fmt: skip
    model = {"depth": 1 if gpu else 1 / 27, "said": ["random weights"], "dtype": "float32", "weights_bytes": 10**9}
    shapes = [{"model": {**model, "name": name}, "machine": machine, "image": {"shape": [8, 8, 4]}, "rows": rows}
              for name in (QWEN, GEMMA)]  # fmt: skip
    second = {"model": GEMMA, "reused_tokens": 5, "prompt_tokens": 9, "seconds": {"first": 10.0, "second": 0.5}}
    stacks = [{"slices": n, "kept": n, "seconds": n, "cpu_s": n, "stages": {"load": 0.4 * n}, "peak_bytes": 12 * n,
               "volume_bytes": 4 * n} for n in (50, 2000)]  # fmt: skip
    scaling = {"model": "tiny", "rows": stacks, "slope": 1.2, "cpu_slope": 1.0, "machine": machine}
    return {"shapes": shapes, "best_baseline": "visionzip", "second": [second], "scaling": scaling}


def test_the_page_is_the_results(repository, benchmark):
    page = (repository / "docs" / "performance.md").read_text(encoding="utf-8")
    found = benchmark("performance").read_results()
    assert found
    assert page == benchmark("performance_page").page(found)


def test_rows(benchmark):
    rows = {one.what: one for one in benchmark("performance_page").must_hold(results())}
    one = rows["MedGemma 1.5 (Gemma-3-4B) shape: file to first token, `fast` against unpruned"]
    assert one.found.startswith("3.7× (41.0 s : 11.0 s; CPU time 3.7×")
    # 1 + 40 * 27 over 1 + 10 * 27
    assert "multiplied up to all layers 4.0×" in one.found
    assert one.holds is False
    assert rows["Qwen3-VL-8B shape: file to first token, `fast` with crop against unpruned"].holds is True  # 8.2
    assert rows["MedGemma 1.5 (Gemma-3-4B) shape: against `medpruner_released`"].holds is True  # 3.3
    assert rows["Qwen3-VL-8B shape: `fast` against the best baseline, visionzip"].holds is True  # 1.9
    assert rows["MedGemma 1.5 (Gemma-3-4B) shape: second question, before decoding"].holds is True
    assert rows["MedGemma 1.5 (Gemma-3-4B) shape: next day's question"].holds is None
    memory = rows["Qwen3-VL-8B shape: peak memory beyond the weights, pruned against unpruned"]
    assert memory.holds is False
    assert memory.profile == "Above: visionzip 120%."
    slope = rows["load to select, 50 to 2,000 slices: log-log slope"]
    assert slope.holds is False
    assert "load 40%" in slope.profile
    assert rows["memory of the 2,000-slice run"].holds is True


def test_loading_does_not_count_on_a_gpu(benchmark):
    rows = {one.what: one for one in benchmark("performance_page").must_hold(results("a GPU"))}
    assert rows["Qwen3-VL-8B shape: the same without crop"].found == "4.0× (40.0 s : 10.0 s)"


def test_rows_without_measurements(benchmark):
    rows = benchmark("performance_page").must_hold({})
    assert len(rows) > 10
    assert {one.holds for one in rows} == {None}


def test_a_page_without_a_gpu_says_so(benchmark):
    text = benchmark("performance_page").page({"cpu": results()})
    assert "Not run: no GPU was at hand" in text
    assert "**Qwen3-VL-8B shape: the same without crop**: 3.7×" in text
    assert "a CPU, 1 of 2 cores" in text


def test_cut(benchmark, tmp_path):
    voxels = np.arange(4 * 5 * 9, dtype=np.int16).reshape(4, 5, 9)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 2, 1])), tmp_path / "ct.nii")
    found = nibabel.load(benchmark("performance").cut(Path(tmp_path / "ct.nii"), tmp_path, 3, 4))
    assert np.array_equal(found.get_fdata(), voxels[:, :, 3:7])
    assert found.affine[2, 3] == 6


def test_the_best_baseline(benchmark):
    performance = benchmark("performance")
    names = ["unpruned", "fast", *(one.name for one in performance.baselines(36, 48))]
    rows = [{"name": name, "right": 50 + (name == "hiprune"), "family": "f"} for name in names[2:]]
    rows += [{"name": name, "right": 99, "family": "f"} for name in names[:2]]
    assert performance.best_baseline({"rows": rows}) == "hiprune"


def test_baselines_have_the_retention_of_the_preset(benchmark):
    found = {one.name: one for one in benchmark("performance").baselines(36, 48)}
    assert {one.rule_slices for one in found.values() if one.rule} == {2}
    assert found["visionzip"].settings["token_pruner::keep_ratio"] == 2 / 36
    assert "evs" not in {one.name for one in benchmark("performance").baselines(36)}


def test_serving(benchmark):
    rates = {"transformers": (2, 3), "vllm without its prefix cache": (1, 8), "vllm": (6, 12)}
    rows = [
        {"engine": engine, "share": share, "prompt_tokens": 9, "questions_per_minute": {"cpu": rate, "clock": 1},
         "first_token_s": {"first": {"cpu": 2.0, "clock": 9.0}, "second": {"cpu": 0.25, "clock": 9.0}}}
        for engine, pair in rates.items() for share, rate in zip((1.0, 0.05), pair, strict=True)
    ]  # fmt: skip
    versions = {"torch": "2", "transformers": "5", "monai": "1"}
    machine = {"gpu": None, "cpu": "a CPU", "threads": 1, "cores": 2, "memory_gib": 4, "versions": versions}
    found = {"machine": machine, "vllm": "0", "load": 3.0, "model": {"num_hidden_layers": 4, "hidden_size": 8},
             "studies": 4, "questions": 16, "new_tokens": 16, "slices": 2, "rows": rows}  # fmt: skip
    text = "\n".join(benchmark("serving_page").serving_section(found))
    assert "| vllm | 5% | 9 | 2.00 | 0.25 | 12 |" in text
    assert "pruning alone 8.0×, the prefix cache alone 6.0×, both 12.0×" in text
    assert "3.0× unpruned, 4.0× pruned" in text
