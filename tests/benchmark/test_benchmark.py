# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The benchmark measures what the bundle runs, and its ratios refer to the unpruned run."""

from __future__ import annotations

import json

import pytest
import torch

from monai_medpruner.benchmark import (
    BENCHMARK_STAGES,
    UNPRUNED,
    Configuration,
    Pipeline,
    benchmark_model,
    benchmark_plot,
    benchmark_table,
    configuration_of_text,
    measure,
    product_of,
    run_once,
)
from monai_medpruner.benchmark.peak_memory import PeakMemory
from monai_medpruner.cli.main import main
from monai_medpruner.data.phantom import PRESETS, phantom_command
from monai_medpruner.errors import SettingsError


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark") / "phantom"
    phantom_command(1, 3, folder, PRESETS["small"])
    return next((folder / "volumes").glob("*.nii.gz"))


@pytest.fixture(scope="module")
def model():
    return benchmark_model("tiny", device="cpu")


def test_rows(model, image):
    given = [Configuration("fast", {"preset": "fast"}), *product_of(["visionzip"], [0.1], [4], ["evenly_spaced"])]
    measured = measure(model, given, image, repeats=2, max_new_tokens=3)
    rows = {row["name"]: row for row in measured["rows"]}
    assert list(rows) == ["unpruned", "fast", "visionzip, 10 % of the tokens, evenly_spaced, 4 slices"]
    unpruned, fast, evenly = rows.values()
    assert unpruned["slices"] == measured["image"]["slices"] == measured["image"]["shape"][-1]
    assert unpruned["visual_tokens"] == unpruned["unpruned_tokens"]
    assert set(unpruned["ratios"].values()) == {1.0}
    assert 0 < fast["visual_tokens"] <= 0.05 * unpruned["visual_tokens"]
    assert evenly["slices"] == 4
    assert evenly["slice_rule"]["max_slices"] == 4
    assert fast["flops"]["encode"] * unpruned["slices"] == unpruned["flops"]["encode"] * fast["slices"]
    assert unpruned["flops"]["select"] == 0 < fast["flops"]["select"]
    for row in rows.values():
        assert tuple(row["seconds"]) == BENCHMARK_STAGES
        assert all(seconds >= 0 for seconds in row["seconds"].values())
        assert row["seconds"]["preprocess"] > 0
        to_first = sum(seconds for stage, seconds in row["seconds"].items() if stage != "decode")
        assert row["first_token_s"] >= 0.9 * to_first
        assert row["repeats"] == 2
        assert row["new_tokens"] <= 3
    json.dumps(measured)
    assert benchmark_table(measured).count("\n") == 5
    assert len(benchmark_plot([measured]).axes) == 1


def test_a_long_configuration_is_not_repeated(model, image):
    measured = measure(model, [], image, repeats=3, at_most_s=0.0001)
    assert measured["rows"][0]["repeats"] == 1


def test_the_run_is_that_of_the_bundle(model, image):
    """Kept slices and tokens are those of the bundle's own workflow."""
    from monai_medpruner.bundles import open_bundle
    from monai_medpruner.data import question_items

    run = run_once(Pipeline(model, Configuration("fast", {"preset": "fast"})), image)
    overrides = {"model_id": "tiny", "revision": None, "preset": "fast", "retention": 0.05, "device": "cpu"}
    workflow = open_bundle(model.bundle, overrides, question_items([str(image)], ["?"]))
    study = workflow.network_def.encode(workflow.parser.get_parsed_content("dataset")[0]["image"])
    assert run.record.slice_indices == study.record.slice_indices
    for ours, theirs in zip(run.record.slices, study.record.slices, strict=True):
        assert torch.equal(ours.keep, theirs.keep)


def test_texts_of_configurations(model):
    found = configuration_of_text("mine: pruner=visionzip token_pruner::keep_ratio=0.05 gamma=none", model.bundle)
    assert found.name == "mine"
    assert found.settings == {"pruner": "visionzip", "token_pruner::keep_ratio": 0.05, "gamma": None}
    found = configuration_of_text("evs: rule=evs rule_slices=8", model.bundle)
    assert found.rule is not None
    assert found.rule["name"] == "evs"
    assert found.rule_slices == 8
    for text in ("no colon", "name: word", "x: rule=evs rule_slices=many", "x: unknown=1", "x: rule=unknown"):
        with pytest.raises(SettingsError):
            configuration_of_text(text, model.bundle)


def test_names_must_differ(model, image):
    with pytest.raises(SettingsError, match="different names"):
        measure(model, [UNPRUNED], image)
    with pytest.raises(SettingsError, match="repeats"):
        measure(model, [], image, repeats=0)


def test_product():
    assert [one.name for one in product_of()] == []
    found = list(product_of(["nucleus", "visionzip"], [0.05], [8, 16]))
    assert len(found) == 4
    assert found[0].settings == {"pruner": "nucleus", "retention": 0.05, "max_slices": 8, "gamma": None}


def test_peak_memory():
    """What is allocated and freed within the block counts, what was there before does not."""
    before = torch.ones(8 * 2**20)
    with PeakMemory(torch.device("cpu")) as peak:
        torch.ones(16 * 2**20).add_(before.sum())
    assert 0.8 * 64 * 2**20 < peak.bytes < 2 * 64 * 2**20


def test_command(image, tmp_path, capsys):
    main(["benchmark", "--image", str(image), "--slices", "0:12", "--presets", "fast", "--repeats", "1",
          "--device", "cpu", "--output_dir", str(tmp_path / "out")])  # fmt: skip
    printed = capsys.readouterr().out
    assert "| unpruned | 12 |" in printed
    (measured,) = json.loads((tmp_path / "out" / "benchmark.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in measured["rows"]] == ["unpruned", "fast"]
    assert {"cpu", "cores", "versions"} <= set(measured["machine"])
    assert benchmark_table(measured) in (tmp_path / "out" / "benchmark.md").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "benchmark.png").stat().st_size > 1000


@pytest.mark.parametrize("depth", ["all", "1/0"])
def test_depth_that_is_no_share(depth, image, capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "--image", str(image), "--model", "shape:qwen3-vl-8b", "--depth", depth])
    assert "--depth must be a share" in capsys.readouterr().err
