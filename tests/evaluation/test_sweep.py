# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A sweep equals separate evaluations, but encodes each volume once."""

from __future__ import annotations

import csv
import itertools
from dataclasses import dataclass

import pytest
from benchmark_runs import lasting, read_lines, read_metrics
from safetensors.torch import load_file

from monai_medpruner.cli.main import main
from monai_medpruner.data.phantom import PhantomSettings, phantom_command
from monai_medpruner.engines import VolumeQA
from monai_medpruner.networks import transformers_encoder as encoding
from monai_medpruner.pruners import PRUNERS, NucleusPruner

GAMMAS, TAUS, TEMPERATURES = ["none", "0.06"], ["0.4", "0.8"], ["0.005", "2"]
GRID = list(itertools.product(GAMMAS, TAUS, TEMPERATURES))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    phantom_command(2, 3, folder, PhantomSettings(in_plane_sizes=(64,), depth=(8, 8)))
    return folder


def sweep(phantoms, output_dir, *more, bundle="medpruner_qwen3vl"):
    words = ["sweep", "--model", "tiny", "--bundle", bundle, "--dataset_dir", str(phantoms)]
    words += ["--output_dir", str(output_dir), "--gamma", *GAMMAS, "--tau", *TAUS, "--temperature", *TEMPERATURES]
    main([*words, "--max_new_tokens", "3", "--task", "closed", *more])


def folder_of(output_dir, gamma, tau, temperature):
    return output_dir / f"gamma={gamma}_tau={tau}_temperature={temperature}"


@pytest.mark.parametrize(
    ("bundle", "budget"), [("medpruner_qwen3vl", None), ("medpruner_medgemma", None), ("medpruner_hulumed", 40)]
)
def test_equals_separate_evaluations(evaluate, phantoms, tmp_path, monkeypatch, capsys, bundle, budget):
    runs = []
    encode = encoding.encode_and_prune_each
    counted = lambda *args, **more: runs.append(1) or encode(*args, **more)  # noqa: E731
    monkeypatch.setattr(encoding, "encode_and_prune_each", counted)
    # a budget makes the size of a slice depend on their number
    more = [] if budget is None else ["--token_budget", str(budget)]
    sweep(phantoms, tmp_path / "sweep", *more, bundle=bundle)
    assert len(runs) == 2 * (1 if budget is None else len(GAMMAS))
    table = capsys.readouterr().out
    kept, gaps = set(), set()
    for gamma, tau, temperature in GRID[:: 1 if budget is None else 3]:
        folder = folder_of(tmp_path / "sweep", gamma, tau, temperature)
        given = {"gamma": gamma if gamma == "none" else float(gamma), "tau": float(tau)}
        given |= {"temperature": float(temperature), "task": "closed", **({"token_budget": budget} if budget else {})}
        name = f"own-{gamma}-{tau}-{temperature}"
        lines, metrics = evaluate(name, bundle=bundle, dataset_dir=str(phantoms), **given)
        swept = lasting(read_lines(folder))
        for line in swept:
            varied = {name: line["settings"].pop(name) for name in ("gamma", "tau", "temperature", "shared_encoder")}
            assert varied["shared_encoder"] is True
            assert [str(varied["gamma"]).lower(), varied["tau"]] == [gamma, float(tau)]
            assert varied["temperature"] == float(temperature)
        for line, other in zip(swept, lasting(lines), strict=True):
            assert line == other
        found = read_metrics(folder)
        assert found["retention"] == metrics["retention"]
        assert found["micro"] == metrics["micro"]
        kept.add(found["retention"]["overall"])
        gaps |= {line["slices"]["indices"] != list(range(line["slices"]["kept"])) for line in swept}
        for own in (tmp_path / name / "records").iterdir():
            records = load_file(own), load_file(folder / "records" / own.name)
            assert all(records[0][key].equal(records[1][key]) for key in ("slice_indices", "primary", "contextual"))
        assert f"{metrics['retention']['overall']:.3f}" in table
    assert len(kept) > 2  # the settings make a difference
    assert gaps == {True, False}  # and some slices between others are dropped


@dataclass(frozen=True)
class WholeVolume(NucleusPruner):
    scope: str = "volume"


def test_whole_volume_nucleus_sees_only_the_slices_of_its_filter(evaluate, phantoms, tmp_path, monkeypatch):
    monkeypatch.setitem(PRUNERS, "nucleus", WholeVolume)
    sweep(phantoms, tmp_path / "sweep")
    fewer = 0
    for gamma, tau, temperature in GRID[4:6]:
        given = {"gamma": float(gamma), "tau": float(tau)}
        name = f"own-{gamma}-{tau}-{temperature}"
        evaluate(name, dataset_dir=str(phantoms), temperature=float(temperature), task="closed", **given)
        for own in (tmp_path / name / "records").iterdir():
            swept = load_file(folder_of(tmp_path / "sweep", gamma, tau, temperature) / "records" / own.name)
            alone = load_file(own)
            assert all(alone[key].equal(swept[key]) for key in ("slice_indices", "primary", "contextual"))
            fewer += len(alone["slice_indices"]) < 8
    assert fewer  # a filter drops slices that another one keeps


def test_table_plot_and_resuming(phantoms, tmp_path, monkeypatch, capsys):
    answer, asked = VolumeQA.answer_each, []

    def answering(self, questions):
        asked.extend(questions)
        return answer(self, questions)

    def breaking_off(self, questions):
        if len(asked) == 11:
            raise KeyboardInterrupt
        return answering(self, questions)

    monkeypatch.setattr(VolumeQA, "answer_each", breaking_off)
    with pytest.raises(KeyboardInterrupt):
        sweep(phantoms, tmp_path)
    assert len(asked) == 11
    monkeypatch.setattr(VolumeQA, "answer_each", answering)
    sweep(phantoms, tmp_path)
    assert capsys.readouterr().out.splitlines()[-len(GRID) - 1].split()[:3] == ["gamma", "tau", "temperature"]
    items = len(read_lines(folder_of(tmp_path, *GRID[0])))
    assert len(asked) == len(GRID) * items  # nothing twice
    with (tmp_path / "sweep.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["gamma"] or "none", row["tau"], row["temperature"].removesuffix(".0")) for row in rows] == GRID
    for row, place in zip(rows, GRID, strict=True):
        metrics = read_metrics(folder_of(tmp_path, *place))
        assert float(row["overall"]) == metrics["retention"]["overall"]
        assert float(row["accuracy"]) == metrics["accuracy"]
        assert float(row["accuracy_low"]) == metrics["micro"]["accuracy"]["low"]
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tau", "0.5", "0.5"], "taus must be a list of distinct values"),
        (["--gamma", "low"], "--gamma must be a number or none, got 'low'"),
        (["--tau", "none"], "--tau must be a number, got 'none'"),
        (["--task"], "expected one argument"),
        (["--task", "$open"], "must not begin with"),
        (["--tsk", "open"], "did you mean --task"),
        (["--benchmark", "vqa"], "unknown benchmark 'vqa'"),
    ],
)
def test_bad_settings(phantoms, tmp_path, capsys, words, message):
    given = ["--model", "tiny", "--dataset_dir", str(phantoms), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as raised:
        main(["sweep", *given, *words])
    assert raised.value.code == (2 if words == ["--task"] else 1)
    assert message in capsys.readouterr().err
