# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Budgets and presets of the bundles: by MONAI's command, by our own, and what wins over what."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from monai.bundle import ConfigParser, run
from monai.data import MetaTensor

from monai_medpruner.bundles import open_bundle
from monai_medpruner.cli.main import main
from monai_medpruner.data.phantom import PRESETS, phantom_command
from monai_medpruner.errors import SettingsError
from monai_medpruner.pruners import TokenBudget
from monai_medpruner.settings import bundle_folders, preset_names, setting_overrides

BUNDLES = ["medpruner_hulumed", "medpruner_medgemma", "medpruner_phantom", "medpruner_qwen3vl"]
PHANTOM = "medpruner_phantom"
SHARES = {"balanced": 0.1, "fast": 0.05}
NAMES = ["balanced", "fast", "makers", "paper", "released"]
QUESTION = "Which organ bears the lesion?"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    phantom_command(1, 77, folder, PRESETS["small"])
    return folder


@pytest.fixture(scope="module")
def image(phantoms):
    return phantoms / "volumes" / "phantom_000000.nii.gz"


def parsed(bundle, *names, **values):
    """A bundle's configuration with a preset's file and values that were given."""
    parser = ConfigParser()
    parser.read_config([bundle_folders()[bundle] / "configs" / f"{name}.json" for name in ("inference", *names)])
    parser.update(values)
    return parser


def limits(parser):
    """γ, τ, the limit, the share and the gap of slices, and the budget, as the objects of a configuration have them."""
    slices, limit, *_ = (one.array_form for one in parser.get_parsed_content("preprocessing").transforms[1].transforms)
    pruner = parser.get_parsed_content("token_pruner")
    return (
        slices.threshold,
        pruner.tau,
        limit.max_slices,
        limit.ratio,
        limit.max_gap_mm,
        parser.get_parsed_content("budget"),
    )


def answered(folder):
    (line,) = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    return line


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_method_as_published_is_the_default(bundle):
    expected = {
        "medpruner_hulumed": (0.025, 0.9, 180),
        "medpruner_medgemma": (0.025, 0.9, 85),
        "medpruner_phantom": (0.01, 0.1, None),
        "medpruner_qwen3vl": (0.025, 0.9, None),
    }
    for names in ((), ("preset_paper",)):
        parser = parsed(bundle, *names)
        # with a threshold of the filter no share of the slices is looked for
        assert limits(parser) == (*expected[bundle], None, None, TokenBudget(share_slices=False))
        assert parser["preset"] == "paper"


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_preset_is_a_file_of_the_bundle(bundle, name):
    parser = parsed(bundle, f"preset_{name}")
    budget = TokenBudget(SHARES[name], max_gap_mm=10.0)
    assert limits(parser) == (None, 1.0, None, budget.known_slice_ratio, 10.0, budget)
    assert parser["preset"] == name
    assert preset_names(bundle_folders()[bundle]) == NAMES


@pytest.mark.parametrize("bundle", BUNDLES)
def test_values_that_are_given_win(bundle):
    fast, share = TokenBudget(0.05, max_gap_mm=10.0), TokenBudget(0.05).known_slice_ratio
    given = replace(fast, share_slices=False)
    more = replace(fast, retention=0.2)
    cases = [
        ({"gamma": 0.05}, (0.05, 1.0, None, None, None, given)),
        ({"max_slices": 40}, (None, 1.0, 40, None, None, given)),
        ({"tau": 0.5}, (None, 0.5, None, share, 10.0, fast)),
        ({"slice_ratio": 0.5}, (None, 1.0, None, 0.5, None, replace(fast, slice_ratio=0.5))),
        ({"retention": 0.2}, (None, 1.0, None, more.known_slice_ratio, 10.0, more)),
        ({"max_visual_tokens": 99}, (None, 1.0, None, share, 10.0, replace(fast, max_visual_tokens=99))),
        ({"max_gap_mm": 5.0}, (None, 1.0, None, share, 5.0, replace(fast, max_gap_mm=5.0))),
        ({"max_gap_mm": "none"}, (None, 1.0, None, share, None, TokenBudget(0.05))),
        ({"gamma": "none", "max_slices": "none"}, (None, 1.0, None, share, 10.0, fast)),
    ]
    for values, expected in cases:
        assert limits(parsed(bundle, "preset_fast", **values)) == expected, values
        texts = {name: str(value) for name, value in values.items()}
        overrides = setting_overrides(bundle_folders()[bundle], {"preset": "fast", **texts})
        assert limits(parsed(bundle, **overrides)) == expected, values
    assert not limits(parsed(bundle, retention="none", max_visual_tokens="none"))[-1].limits_tokens
    assert limits(parsed(bundle, max_visual_tokens=50)) == (
        *(None, 1.0, None, None, 10.0),
        TokenBudget(None, 50, max_gap_mm=10.0),
    )


@pytest.mark.parametrize("bundle", BUNDLES)
def test_tokens_of_every_bundle(bundle):
    """Tiny models and the phantom bundle's own: five percent and less, said in the record."""
    own = {} if bundle == PHANTOM else {"model_id": "tiny", "revision": None}
    folder = bundle_folders()[bundle]
    workflow = open_bundle(folder, {**own, "device": "cpu", **setting_overrides(folder, {"preset": "fast"})}, items=[])
    encoder = workflow.network_def.encoder
    volume = MetaTensor(torch.rand(1, 96, 96, 60, generator=torch.Generator().manual_seed(1)))
    record = encoder.encode(volume).record
    assert record.unpruned_tokens == 60 * encoder.unpruned_tokens(96, 96)
    assert sum(record.kept_tokens) == TokenBudget(0.05).tokens(record.unpruned_tokens)
    assert 0.04 < record.retention["overall"] <= 0.05
    assert record.settings["preset"] == "fast"
    assert record.settings["budget"]["retention"] == 0.05


def test_one_word_for_five_percent(image, tmp_path, capsys):
    """Our command and MONAI's give the same answers and the same record."""
    words = ["--image", str(image), "--question", QUESTION, "--device", "cpu", "--bundle", PHANTOM]
    main(["ask", *words, "--preset", "fast", "--output_dir", str(tmp_path / "ask")])
    folder = bundle_folders()[PHANTOM]
    run(
        config_file=[str(folder / "configs" / f"{name}.json") for name in ("inference", "preset_fast")],
        bundle_root=str(folder),
        image=str(image),
        question=QUESTION,
        device="cpu",
        output_dir=str(tmp_path / "run"),
    )
    one, other = answered(tmp_path / "ask"), answered(tmp_path / "run")
    assert one["answer"] == other["answer"]
    assert one["tokens"] == other["tokens"]
    assert one["settings"] == other["settings"]
    assert one["settings"]["preset"] == "fast"
    assert 0.04 < one["retention"]["overall"] <= 0.05
    # slices of 5.3 mm: more than every second one is further apart than 10 mm
    assert one["slices"]["kept"] > one["slices"]["total"] // 2


def test_shares_of_a_range(image, tmp_path, capsys):
    words = ["--image", str(image), "--question", QUESTION, "--device", "cpu", "--bundle", PHANTOM]
    given = ["--retention", "0.2", "--slices", "10:40", "--max_gap_mm", "none"]
    main(["ask", *words, *given, "--output_dir", str(tmp_path)])
    line = answered(tmp_path)
    assert line["slices"]["range"] == 30
    assert line["slices"]["kept"] == 13  # the square root of 0.2, of 30
    assert line["tokens"]["unpruned"] == 30 * 36
    assert line["tokens"]["kept"] == 216
    assert line["settings"]["preset"] == "paper"
    assert any("slice_ratio" in note for note in line["notes"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--preset", "quick"],
            "there is no preset 'quick' in medpruner_phantom; there are: balanced, fast, makers,",
        ),
        (["--preset", "../inference"], "there is no preset"),
        (["--retention", "5"], "retention must lie in"),
        (["--retention", "some"], "--retention must be a number or none"),
        (["--max_visual_tokens", "1"], "budget of 1 visual tokens"),
    ],
    ids=str,
)
def test_what_is_refused(image, tmp_path, capsys, words, message):
    given = ["--image", str(image), "--question", QUESTION, "--device", "cpu", "--bundle", PHANTOM]
    with pytest.raises(SystemExit):
        main(["ask", *given, *words, "--output_dir", str(tmp_path)])
    assert message in capsys.readouterr().err


def test_the_option_that_monai_would_only_write_down_is_refused(monkeypatch, image, tmp_path):
    """``--preset fast`` of MONAI's command would name the preset and change nothing."""
    monkeypatch.setattr("sys.argv", ["monai.bundle", "run", "--preset", "fast"])
    folder = bundle_folders()[PHANTOM]
    with pytest.raises((SettingsError, RuntimeError)) as raised:
        run(
            config_file=str(folder / "configs" / "inference.json"),
            bundle_root=str(folder),
            image=str(image),
            question=QUESTION,
            preset="fast",
            output_dir=str(tmp_path),
        )
    causes = [raised.value, raised.value.__cause__]
    assert any(isinstance(one, SettingsError) and "configs/preset_NAME.json" in str(one) for one in causes)


def test_sweep_under_a_budget(phantoms, tmp_path):
    """The thresholds of a sweep are given ones: the budget limits their tokens, not their slices."""
    folder = bundle_folders()[PHANTOM]
    overrides = setting_overrides(folder, {"preset": "balanced", "output_dir": str(tmp_path), "task": "closed"})
    overrides |= {"dataset_dir": str(phantoms), "gammas": [0.02, 0.04], "taus": [1.0], "temperatures": [1.0]}
    workflow = open_bundle(folder, {**overrides, "device": "cpu"}, configs=("inference", "evaluate", "sweep"))
    encoder = workflow.network_def.encoder
    assert encoder.budget == TokenBudget(0.1, share_slices=False, max_gap_mm=10.0)
    rows = workflow.evaluator.run()
    shares = [row["metrics"]["retention"] for row in rows]
    assert [share["overall"] <= 0.1 for share in shares] == [True, True]
    assert shares[0]["slices"] > shares[1]["slices"]
