# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slice rules: small hand-computed cases, the search for a number of slices, and the check that others run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_medpruner.errors import NonFiniteVoxelsError, SettingsError, SliceGeometryError, VolumeShapeError
from monai_medpruner.testing import check_slice_rule
from monai_medpruner.transforms.anchor_rule import GAMMA_GRID
from monai_medpruner.transforms.slice_rules import (
    SLICE_RULES,
    AllSlices,
    AnchorRule,
    CumulativeChange,
    EvenlySpaced,
    EvenlySpacedMm,
    EVSRule,
    HuluMedRule,
    SliceChoice,
    SliceRule,
    SliceStack,
)


def stack_of(levels: list[float], positions: list[float] | None = None) -> SliceStack:
    """Constant slices of 4 x 4 pixels."""
    voxels = torch.tensor(levels, dtype=torch.float64).expand(1, 4, 4, len(levels)).contiguous()
    return SliceStack(voxels, 3, tuple(positions or map(float, range(len(levels)))), (1.0, 1.0))


RULES = [
    *(rule() for rule in SLICE_RULES.values()),
    AnchorRule(0.1, max_gap_mm=9.0),
    AnchorRule(0.2, guard_mm=3.0, guard_threshold=0.1),
    AnchorRule(0.05, max_gap_mm=6.0, guard_mm=5.0),
    AnchorRule(None, max_gap_mm=6.0),
    EvenlySpaced(5),
    EvenlySpacedMm(12.0),
    CumulativeChange(7),
    EVSRule(0.0),
    HuluMedRule(0.1, cell_pixels=4),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_what_must_hold_for_every_rule(rule):
    check_slice_rule(rule)


def test_every_slice():
    stack = stack_of([0, 0, 0])
    assert AllSlices().choose(stack) == SliceChoice([0, 1, 2])
    with pytest.raises(SettingsError, match="keeps all 3 slices, 2 are allowed"):
        AllSlices().at_most(stack, 2)


@pytest.mark.parametrize(
    ("depth", "count", "kept"),
    [(10, 1, [5]), (10, 2, [2, 7]), (10, 3, [1, 5, 8]), (4, 4, [0, 1, 2, 3]), (3, 9, [0, 1, 2]), (3, None, [0, 1, 2])],
)
def test_evenly_spaced(depth, count, kept):
    assert EvenlySpaced(count).choose(stack_of([0] * depth)).kept == kept


@pytest.mark.parametrize(
    ("positions", "gap", "kept"),
    [
        ([0, 1, 2, 3, 4, 5, 6], 2.0, [2, 4]),
        ([0, 1, 2, 3, 4, 5, 6], 6.0, [3]),  # one is kept in any case
        ([6, 5, 4, 3, 2, 1, 0], 2.5, [2, 4]),
        ([0, 2, 3, 7, 7.5, 11], 4.0, [2, 3]),
        ([0, 9, 10, 11, 20], 3.0, [0, 1, 3, 4]),  # both ends of the source's own gaps
        ([0, 1.25, 2.5, 3.75, 5.0, 6.25, 7.5, 8.75, 10.0], 2.5, [2, 4, 6]),
    ],
)
def test_evenly_spaced_in_mm(positions, gap, kept):
    assert EvenlySpacedMm(gap).choose(stack_of([0] * len(positions), positions)).kept == kept


def test_rounding_of_positions_costs_no_slices():
    """5 steps of 1.2 mm are 6 mm, though they are a little more in float64."""
    positions = [12.1 + 1.2 * index for index in range(21)]
    assert positions[5] - positions[0] > 6
    assert EvenlySpacedMm(6.0).choose(stack_of([0] * 21, positions)).kept == [5, 10, 15]


def test_fewest_slices_for_a_gap():
    """Against all choices of a short stack."""
    positions = [0, 1.5, 2, 4.5, 5, 8, 8.5, 9, 13, 14]
    stack = stack_of([0] * 10, positions)
    subsets = [[index for index in range(10) if choice >> index & 1] for choice in range(1, 1024)]
    for count in range(1, 10):
        best = min(stack.largest_gap(kept).length_mm for kept in subsets if len(kept) <= count)
        found = EvenlySpacedMm().at_most(stack, count)
        assert stack.largest_gap(found.choose(stack).kept).length_mm == best
        assert len(found.choose(stack).kept) <= count


def test_cumulative_change():
    # differences 0, 1, 0, 0, 3, 0; sums 0, 1, 1, 1, 4, 4; marks of two: 1 and 3; of four: 0.5, 1.5, 2.5, 3.5
    stack = stack_of([0, 1, 1, 1, 4, 4])
    assert CumulativeChange(2).choose(stack) == SliceChoice([1, 4], [0, 1, 0, 0, 3, 0])
    assert CumulativeChange(4).choose(stack).kept == [1, 4]
    assert CumulativeChange(3).choose(stack_of([7] * 5)).kept == [2]
    assert CumulativeChange().choose(stack).kept == list(range(6))


def test_evs():
    stack = stack_of([0, 3, 3, 4, 2, 1, 1, 0])  # differences 0, 3, 0, 1, 2, 1, 0, 1
    assert EVSRule(0.75).choose(stack) == SliceChoice([0, 1], [0, 3, 0, 1, 2, 1, 0, 1])
    assert EVSRule(0.5).choose(stack).kept == [0, 1, 3, 4]  # the earlier one of equals
    assert EVSRule(0.99).choose(stack).kept == [0]
    assert [len(EVSRule().at_most(stack, count).choose(stack).kept) for count in range(1, 10)] == [*range(1, 9), 8]


def test_hulumed():
    """One cell of four differs, by its mean; a difference of exactly the threshold is none."""
    voxels = torch.zeros(1, 4, 4, 4, dtype=torch.float64)
    voxels[0, :2, 2:, 1] = 0.25  # the whole of one cell
    voxels[0, 0, 2, 3] = 0.5  # a quarter of one cell: 0.125
    stack = SliceStack(voxels, 3, (0.0, 1.0, 2.0, 3.0), (1.0, 1.0))
    assert HuluMedRule(0.2, 2).choose(stack) == SliceChoice([0, 1, 2], [0, 0.25, 0.25, 0.125])
    assert HuluMedRule(0.125, 2).choose(stack).kept == [0, 1, 2]
    assert HuluMedRule(0.05, 28).choose(stack).distances == [0, 0.0625, 0.0625, 0.03125]
    assert HuluMedRule(0.1, 2).at_most(stack, 3) == HuluMedRule(0.125, 2)
    assert HuluMedRule(0.1, 2).at_most(stack, 2) == HuluMedRule(0.25, 2)  # equals go together
    with pytest.raises(VolumeShapeError, match="three spatial axes"):
        HuluMedRule().choose(SliceStack(torch.zeros(1, 3, 3), 2, (0.0, 1.0, 2.0), (1.0,)))


def plain_loop(slices: np.ndarray, positions: list[float], gamma: float, gap: float) -> list[int]:
    """Eq. 2 with the bound, word for word."""
    kept, last = [0], len(slices) - 1
    for index in range(1, len(slices)):
        anchor = kept[-1]
        reach = [abs(positions[other] - positions[anchor]) > gap for other in (index, min(index + 1, last))]
        if np.abs(slices[index] - slices[anchor]).mean() > gamma or any(reach):
            kept.append(index)
    return kept


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    depth=st.integers(1, 40),
    gap=st.sampled_from([0.5, 2.0, 5.0, 9.5, 30.0]),
    layout=st.permutations(range(4)),
    gamma=st.floats(0.0, 1.5),
)
def test_gap_bound_against_a_plain_loop(seed, depth, gap, layout, gamma):
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((1, 5, 6, depth)) * rng.lognormal(-1, 1.5, depth)
    image = torch.as_tensor(np.cumsum(steps, axis=-1)).permute(layout).contiguous()
    image = image.permute(np.argsort(layout).tolist())
    positions = (np.cumsum(rng.integers(1, 20, depth)) / 4 * rng.choice([-1, 1])).tolist()
    stack = SliceStack(image, 3, tuple(positions), (1.0, 1.0))
    choice = AnchorRule(gamma, max_gap_mm=gap).choose(stack)
    slices = np.moveaxis(image.numpy(), -1, 0)
    assert choice.kept == plain_loop(slices, positions, gamma, gap)
    anchors = [max([0, *(one for one in choice.kept if one < index)]) for index in range(depth)]
    expected = [float(np.abs(slices[index] - slices[anchor]).mean()) for index, anchor in enumerate(anchors)]
    assert choice.distances == pytest.approx(expected, rel=1e-12, abs=0)


def test_a_gap_of_the_source_is_noted():
    stack = stack_of([0] * 6, [0, 1, 2, 14, 15, 27.5])
    rule = AnchorRule(0.5, max_gap_mm=10.0)
    choice = rule.choose(stack)
    assert choice.kept == [0, 2, 3, 4, 5]  # both ends of both gaps
    assert choice.notes == (
        "2 gaps between slices of the source are larger than max_gap_mm 10; the largest, between slices 4 and 5 of "
        "those given, is 12.50 mm.",
    )
    assert AnchorRule(0.5, max_gap_mm=12.5).choose(stack).notes == ()
    assert AnchorRule(0.5).choose(stack).notes == ()
    unplaced = SliceStack(stack.voxels, 3, (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 1.0), placed=False)
    assert "count as 1 mm apart" in rule.choose(unplaced).notes[0]


def test_smallest_threshold_of_the_grid():
    """No smaller γ of the grid keeps few enough, though larger ones may keep more again."""
    generator = torch.Generator().manual_seed(3)
    voxels = torch.rand(1, 6, 5, 30, generator=generator) * torch.rand(30, generator=generator)
    stack = SliceStack(voxels, 3, tuple(map(float, range(30))), (1.0, 1.0))
    counts = {gamma: len(AnchorRule(gamma).choose(stack).kept) for gamma in GAMMA_GRID}
    for limit in range(1, 31):
        found = AnchorRule().at_most(stack, limit).threshold
        assert found == min(gamma for gamma, count in counts.items() if count <= limit)


def test_the_number_of_slices_wins_over_the_bounds():
    flicker = stack_of([0, 1] * 10)
    bounded = AnchorRule(0.01, max_gap_mm=2.0, guard_mm=2.0, guard_threshold=0.5)
    assert bounded.at_most(flicker, 20) == AnchorRule(GAMMA_GRID[0], 2.0, 2.0, 0.5)
    found = bounded.at_most(flicker, 4)
    assert (found.guard_mm, found.threshold) == (None, 1.0)
    assert found.max_gap_mm == 5.0  # 19 mm: 0, 5, 10, 15
    assert found.choose(flicker).kept == [0, 5, 10, 15]
    with pytest.raises(SettingsError, match=r"scale intensities to \[0, 1\] first"):
        AnchorRule().at_most(stack_of([0, 100] * 4), 3)


@pytest.mark.parametrize("rule", [AnchorRule(), CumulativeChange(2), EVSRule(), HuluMedRule()], ids=repr)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_voxels_that_are_not_finite(rule, value):
    with pytest.raises(NonFiniteVoxelsError, match="CheckVolume"):
        rule.choose(stack_of([0, 1, value, 0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnchorRule(-1), "threshold must be finite and at least 0"),
        (lambda: AnchorRule(max_gap_mm=0), "max_gap_mm must be a finite number above 0"),
        (lambda: AnchorRule("0.1"), "threshold must be a number or None"),
        (lambda: AnchorRule(guard_mm=float("inf")), "guard_mm must be"),
        (lambda: EvenlySpaced(0), "count must be at least 1"),
        (lambda: EvenlySpaced(2.5), "count must be a whole number"),
        (lambda: EvenlySpacedMm(0), "gap_mm must be a finite number above 0"),
        (lambda: CumulativeChange(-3), "count must be at least 1"),
        (lambda: EVSRule(1.0), r"pruning_rate must lie in \[0, 1\)"),
        (lambda: HuluMedRule(-0.1), "threshold must be finite"),
        (lambda: HuluMedRule(cell_pixels=0), "cell_pixels must be at least 1"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(SettingsError, match=message):
        make()


def test_positions_of_another_volume():
    with pytest.raises(SliceGeometryError, match="3 positions were given for 2 slices"):
        SliceStack(torch.zeros(1, 2, 2, 2), 3, (0.0, 1.0, 2.0), (1.0, 1.0))


@dataclass(frozen=True)
class EverySecond(SliceRule):
    step: int = 2

    def choose(self, stack):
        return SliceChoice(list(range(0, stack.depth, self.step)))

    def at_most(self, stack, max_slices):
        return self._with(step=-(-stack.depth // max_slices))


class KeepsNone(EverySecond):
    def choose(self, stack):
        return SliceChoice([])


class ForgetsTheLimit(EverySecond):
    def at_most(self, stack, max_slices):
        return self


class LooksAtMemory(EverySecond):
    def choose(self, stack):
        return SliceChoice([0] if stack.voxels.is_contiguous() else list(range(stack.depth)))


class ChangesVoxels(EverySecond):
    def choose(self, stack):
        stack.voxels.add_(1)
        return super().choose(stack)


class RunsBeyond(EverySecond):
    def choose(self, stack):
        return SliceChoice([0, stack.depth])


class MeasuresHalf(EverySecond):
    def choose(self, stack):
        return SliceChoice([0], [0.0] * (stack.depth // 2))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (KeepsNone, "at least one slice must be kept"),
        (ForgetsTheLimit, r"at_most\(1\) returned a rule that keeps 2"),
        (LooksAtMemory, "memory layout"),
        (ChangesVoxels, "must not be changed in place"),
        (RunsBeyond, "must lie within"),
        (MeasuresHalf, "distances must be one a slice"),
    ],
)
def test_a_wrong_rule_is_found(kind, message):
    check_slice_rule(EverySecond())
    wrong = dataclass(frozen=True)(kind)
    globals()[kind.__name__] = wrong  # where pickle looks for it
    with pytest.raises(AssertionError, match=message):
        check_slice_rule(wrong())


def test_a_rule_that_is_no_dataclass():
    class Plain(EverySecond):
        pass

    with pytest.raises(AssertionError, match="must be a dataclass whose fields rebuild it"):
        check_slice_rule(Plain())


def test_a_guard_without_a_threshold_is_noted():
    """Every slice is kept, and nobody believes that the guard was at work."""
    stack = SliceStack(torch.rand(1, 8, 8, 5), 3, (0.0, 1.0, 2.0, 3.0, 4.0), (1.0, 1.0))
    (note,) = AnchorRule(None, guard_mm=4.0).choose(stack).notes
    assert "guard_mm" in note
    assert AnchorRule(None).choose(stack).notes == ()
