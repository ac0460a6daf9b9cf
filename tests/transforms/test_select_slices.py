# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices chosen by a rule: what is recorded, what is found for a number of slices, rules from other packages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose

from monai_medpruner.errors import SettingsError
from monai_medpruner.testing import check_slice_rule
from monai_medpruner.transforms import (
    InterSliceAnchorFilter,
    SelectSlices,
    SelectSlicesd,
    SliceRange,
    describe_transform,
)
from monai_medpruner.transforms.slice_rules import (
    SLICE_RULES,
    AnchorRule,
    EvenlySpaced,
    EvenlySpacedMm,
    EVSRule,
    find_slice_rule,
    select_slice_rule,
    slice_rule_names,
    slice_rule_settings,
)

AFFINE = torch.tensor([[0.8, 0, 0, -40], [0, 0.9, 0, 12], [0, 0, 2.5, 100], [0, 0, 0, 1]], dtype=torch.float64)


def volume(depth: int = 30, seed: int = 0, **meta) -> MetaTensor:
    steps = torch.randn(1, 5, 6, depth, generator=torch.Generator().manual_seed(seed)) * 0.1
    return MetaTensor(steps.cumsum(-1).add(0.5).clamp(0, 1), affine=AFFINE.clone(), meta=meta)


@pytest.mark.parametrize("name", [name for name in SLICE_RULES if name != "all"])
@pytest.mark.parametrize("limit", [1, 4, 11, 30])
def test_never_more_than_asked_for(name, limit):
    out = SelectSlices(name, limit)(volume())
    kept = list(out.meta["kept_indices"])
    assert 1 <= len(kept) == out.shape[-1] <= limit
    assert torch.equal(out.as_tensor(), volume().as_tensor()[..., kept])
    (rule,) = out.meta["slice_rules"]
    assert rule["name"] == name
    assert select_slice_rule(**rule) == SLICE_RULES[name]().at_most(SelectSlices().stack(volume()), limit)
    assert out.meta["notes"][0].startswith(
        f"At most {limit} slices were asked for: the slice rule {name} keeps {len(kept)} "
    )


def test_what_was_found_is_told():
    image = volume(notes=["read"])
    out = SelectSlices({"name": "anchor", "max_gap_mm": 10.0}, 5)(image)
    found = AnchorRule(max_gap_mm=10.0).at_most(SelectSlices().stack(image), 5)
    assert found.max_gap_mm > 10  # 72.5 mm
    assert list(out.meta["notes"]) == [
        "read",
        f"At most 5 slices were asked for: the slice rule anchor keeps {out.shape[-1]} of 30 with threshold "
        f"{found.threshold:.6g} (was 0.025), max_gap_mm {found.max_gap_mm:.6g} (was 10).",
    ]
    assert list(image.meta["notes"]) == ["read"]
    kept = SelectSlices(EVSRule(0.5))(image)
    assert list(kept.meta["notes"]) == ["read"]
    assert list(kept.meta["slice_rules"]) == [{"name": "evs", "pruning_rate": 0.5}]


def test_the_anchor_rule_is_the_filter():
    image = volume()
    for settings in ({"threshold": 0.12}, {"threshold": 0.2, "max_gap_mm": 8}, {"threshold": None}):
        select, anchor_filter = SelectSlices(AnchorRule(**settings)), InterSliceAnchorFilter(**settings)
        one, other = select(image), anchor_filter(image)
        assert torch.equal(one.as_tensor(), other.as_tensor())
        assert one.meta.get("slice_distances") == other.meta.get("slice_distances")
        assert torch.equal(select.inverse(one), anchor_filter.inverse(other))


def test_distances_and_rules_of_several_selections():
    out = Compose([SliceRange("10:20"), SelectSlices("evs", 6), SelectSlices("evenly_spaced", 2)])(volume())
    distances = out.meta["slice_distances"]
    assert len(distances) == 30
    assert [index for index, value in enumerate(distances) if value == value] == list(range(10, 20))  # the rest is NaN
    assert [rule["name"] for rule in out.meta["slice_rules"]] == ["evs", "evenly_spaced"]
    assert len(out.meta["kept_indices"]) == 2


def test_inverse():
    image = volume()
    for name in SLICE_RULES:
        transform = SelectSlices(name, None if name == "all" else 7)
        out = transform(image)
        kept = list(out.meta["kept_indices"])
        back = transform.inverse(out)
        assert back.shape == image.shape
        assert torch.equal(back.affine, image.affine)
        assert "slice_rules" not in back.meta
        assert torch.equal(back[..., kept].as_tensor(), image[..., kept].as_tensor())
        dropped = [index for index in range(30) if index not in kept]
        assert bool((back[..., dropped] == 0).all()) is (name != "anchor")


def test_every_key_keeps_the_same_slices():
    image, label = volume(), MetaTensor(torch.arange(30).expand(1, 5, 6, 30).clone(), affine=AFFINE.clone())
    out = SelectSlicesd(["image", "label"], "cumulative_change", 6)({"image": image, "label": label})
    assert out["label"].as_tensor()[0, 0, 0].tolist() == list(out["image"].meta["kept_indices"])
    assert out["label"].meta["slice_rules"] == out["image"].meta["slice_rules"]
    assert out["label"].meta["notes"] == out["image"].meta["notes"]
    assert "slice_distances" not in out["label"].meta


def test_batches():
    items = [SelectSlicesd("image", "evenly_spaced", 4)({"image": volume(depth)}) for depth in (9, 12)]
    batch = decollate_batch(list_data_collate(items))
    assert [list(one["image"].meta["slice_rules"]) for one in batch] == [[{"name": "evenly_spaced", "count": 4}]] * 2


def test_descriptions():
    described = describe_transform(SelectSlices(EvenlySpacedMm(7.5), 12))
    assert described["arguments"] == {
        "rule": {"name": "evenly_spaced_mm", "gap_mm": 7.5},
        "max_slices": 12,
        "spatial_dim": -1,
    }


@pytest.mark.parametrize("rule", [3, None, ["anchor"]])
def test_no_rule(rule):
    with pytest.raises(SettingsError, match="rule must be a slice rule, its name or its settings"):
        SelectSlices(rule)


@pytest.mark.parametrize("limit", [0, -2, 1.0, True, "5"])
def test_no_number_of_slices(limit):
    with pytest.raises(SettingsError, match="max_slices must be an integer of at least 1, or None"):
        SelectSlices("evenly_spaced", limit)


def test_a_rule_that_cannot_keep_so_few():
    with pytest.raises(SettingsError, match="'all' keeps all 30 slices, 5 are allowed"):
        SelectSlices("all", 5)(volume())
    assert SelectSlices("all", 30)(volume()).shape[-1] == 30


def test_names():
    assert slice_rule_names() == sorted(SLICE_RULES)
    for name, rule in SLICE_RULES.items():
        assert find_slice_rule(name) is rule
        assert select_slice_rule(**slice_rule_settings(rule())) == rule()
    with pytest.raises(SettingsError, match="no slice rule is named 'none'; there are: all, anchor, cumulative_change"):
        select_slice_rule("none")
    with pytest.raises(SettingsError, match="'evenly_spaced' has no field named gap_mm; its fields are: count"):
        select_slice_rule("evenly_spaced", gap_mm=3)


def test_fields_are_replaced_in_the_rule_that_is_made():
    made = {"anchor": AnchorRule(0.1, max_gap_mm=5.0)}
    assert select_slice_rule("anchor", made) == made["anchor"]
    assert select_slice_rule("anchor", made, threshold=0.2) == AnchorRule(0.2, max_gap_mm=5.0)
    assert select_slice_rule("anchor", made, max_gap_mm="none") == AnchorRule(0.1)
    assert select_slice_rule("evenly_spaced", made, count=3) == EvenlySpaced(3)


def test_a_rule_from_another_package(tmp_path, monkeypatch):
    (tmp_path / "their_rules.py").write_text(
        "from dataclasses import dataclass\n"
        "from monai_medpruner.transforms.slice_rules import SliceChoice, SliceRule\n"
        "@dataclass(frozen=True)\n"
        "class FirstSlices(SliceRule):\n"
        "    count: int = 3\n"
        "    def choose(self, stack):\n"
        "        return SliceChoice(list(range(min(self.count, stack.depth))))\n"
        "    def at_most(self, stack, max_slices):\n"
        "        return type(self)(max_slices)\n"
    )
    metadata = Path(tmp_path / "their_rules-1.0.dist-info")
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their_rules\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[monai_medpruner.slice_rules]\nfirst = their_rules:FirstSlices\nbroken = pathlib:Path\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert slice_rule_names() == sorted([*SLICE_RULES, "first", "broken"])
    check_slice_rule(select_slice_rule("first"))
    out = SelectSlices("first", 4)(volume())
    assert list(out.meta["kept_indices"]) == [0, 1, 2, 3]
    assert list(out.meta["slice_rules"]) == [{"name": "first", "count": 4}]
    with pytest.raises(SettingsError, match=r"their_rules 1\.0.*is no subclass of SliceRule"):
        SelectSlices("broken")
