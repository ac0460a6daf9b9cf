# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Real gloo processes give exactly the result of a single process."""

from __future__ import annotations

import pytest
from gloo_ranks import Ranks, measure
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

WORDS = st.sampled_from(["the", "liver", "lesions", "lesion", "is", "Large", "large.", "no", "2.5", "x-ray", "."])
TEXT = st.builds(" ".join, st.lists(WORDS, max_size=8))
ANSWER = st.one_of(TEXT, st.sampled_from(["B", "The answer is C", "Both lungs", "", "A or B"]))
ITEM = st.tuples(ANSWER, TEXT, st.sampled_from("ABCD"))
CHOICES = {"A": "Spleen", "B": "Liver", "C": "Heart", "D": "Both lungs"}


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request, tmp_path_factory):
    group = Ranks(request.param, str(tmp_path_factory.mktemp("gloo") / "store"))
    yield group
    group.close()


def batched(items, size):
    """Split items into batches as an evaluator would."""
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    return [
        (
            [p for p, _, _ in batch],
            [r for _, r, _ in batch],
            [{"answer_choice": c, "choices": CHOICES} for *_, c in batch],
        )
        for batch in batches
    ]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_uneven_ranks_equal_one_process(ranks, data):
    items = data.draw(st.lists(ITEM, min_size=1, max_size=14))
    # items are assigned to ranks at random: shards have any size, including 0, and any order
    owners = data.draw(st.lists(st.integers(0, len(ranks.pipes) - 1), min_size=len(items), max_size=len(items)))
    size = data.draw(st.integers(1, 4))
    shards = [
        batched([item for item, owner in zip(items, owners, strict=True) if owner == rank], size)
        for rank in range(len(ranks.pipes))
    ]
    alone = measure(batched(items, len(items)))
    assert all(count == len(items) for _, count in alone)
    for answers in ranks(shards):
        assert answers == alone


def test_a_rank_without_items_takes_part(ranks):
    items = [("B", "the liver", "B"), ("no lesion", "no lesions", "A")]
    shards = [batched(items, 2)] + [[] for _ in ranks.pipes[1:]]
    assert ranks(shards) == [measure(batched(items, 2))] * len(ranks.pipes)
    assert ranks(shards[::-1]) == [measure(batched(items, 2))] * len(ranks.pipes)


def test_all_ranks_without_items(ranks):
    assert ranks([[] for _ in ranks.pipes]) == [[("nan", 0)] * 7] * len(ranks.pipes)
