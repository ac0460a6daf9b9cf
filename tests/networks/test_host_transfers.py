# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Selection reads the device once a batch, not once a slice; published pruners on every family."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from conftest import SIZES
from host_transfers import HostCopies, HostTransfers
from transformers import AutoModelForImageTextToText

from monai_medpruner.errors import SettingsError
from monai_medpruner.networks.checkpoint import load_processors
from monai_medpruner.networks.encoding import encode_and_prune_each, encode_scored, prune_scored
from monai_medpruner.networks.families import ModelFamily, family_class
from monai_medpruner.pruners import PRUNERS, NucleusPruner, ReceivedAttention
from monai_medpruner.testing import prompt_inputs, randomize_weights

NAMED = {
    "volume": NucleusPruner(scope="volume", max_importance=1.5),
    "min_tokens": NucleusPruner(temperature=0.1, min_tokens=3),
    **{name: pruner() for name, pruner in PRUNERS.items()},
}
every_pruner = pytest.mark.parametrize("pruner", NAMED.values(), ids=NAMED)
PUBLISHED = ("visionzip", "hiprune", "divprune", "cdpruner")


@pytest.fixture
def family(checkpoint):
    """The family of a tiny stock model."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    randomize_weights(model)
    return family_class(model.config.model_type)(model)


@pytest.fixture
def slices(checkpoint, family):
    """Return a function: sizes of slices -> their inputs."""
    processors = load_processors(str(checkpoint))
    return lambda *sizes: prompt_inputs(family, *processors, sizes)


def question_for(family) -> torch.Tensor:
    width = family.model.get_input_embeddings().weight.shape[1]
    return torch.randn(4, width, generator=torch.Generator().manual_seed(2))


def selection_transfers(family, pruner, inputs) -> Counter[str]:
    """What :func:`encode_and_prune_each` brings to the host outside the stock encoder."""
    counted: Counter[str] = Counter()
    encode = family.encode

    def uncounted(images):
        before = counted.copy()
        encoded = encode(images)
        counted.clear()
        counted.update(before)
        return encoded

    family.encode = uncounted
    try:
        with HostCopies(counted), HostTransfers(counted):
            encode_and_prune_each(family, [pruner], inputs, question=question_for(family))
    finally:
        del family.encode
    return counted


@every_pruner
def test_transfers_do_not_grow_with_the_slices(family, slices, pruner):
    # sizes take turns, so that no two neighbors are handled as one
    two, eight = ([SIZES[0], SIZES[1]] * times for times in (1, 4))
    few, many = (selection_transfers(family, pruner, slices(*sizes)) for sizes in (two, eight))
    assert few == many
    # grids and segments of the inputs, lengths of the merge, one mask, one set of records
    assert 2 < sum(many.values()) <= 12


@every_pruner
def test_pruning_what_was_scored(family, slices, pruner):
    counts = []
    for times in (1, 4):
        scored = encode_scored(family, [pruner], slices(*SIZES * times))
        counts.append(Counter())
        with HostCopies(counts[-1]), HostTransfers(counts[-1]):
            prune_scored(family, pruner, scored, question_for(family))
    assert counts[0] == counts[1]
    assert counts[0]["cpu"] == 1  # the records; what else is counted reads numbers, or what is on the host


@dataclass(frozen=True)
class SliceBySlice(NucleusPruner):
    """Looks at each slice by itself."""

    def select(self, score, slices):
        chosen = slices.valid.clone()
        for one, valid, kept in zip(score, slices.valid, chosen, strict=True):
            kept[valid] = one[valid] >= one[valid].mean().item()
        return chosen


def test_a_pruner_that_reads_each_slice_is_found(family, slices):
    few, many = (selection_transfers(family, SliceBySlice(), slices(*SIZES[:2] * times)) for times in (1, 4))
    assert many["_local_scalar_dense"] == few["_local_scalar_dense"] + 6
    assert many["index"] == few["index"] + 12


def test_what_counts():
    """Every way to the host, and nothing that stays on the device."""
    values, mask = torch.arange(6.0), torch.arange(6) > 2
    ways = [
        lambda: values.tolist(),
        lambda: values.cpu(),
        lambda: values.to("cpu"),
        lambda: values.numpy(),
        lambda: values[2].item(),
        lambda: float(values[2]),
        lambda: bool(mask.any()),
        lambda: mask.nonzero(),
        lambda: values[mask],
        lambda: values.masked_select(mask),
        lambda: values.clone().__setitem__(mask, values[:3]),
        lambda: values.repeat_interleave(mask.long()),
        lambda: torch.equal(values, values),
        lambda: values.unique(),
    ]
    for way in ways:
        counted: Counter[str] = Counter()
        with HostCopies(counted), HostTransfers(counted):
            way()
        assert counted
    with HostCopies(counted := Counter()), HostTransfers(counted):
        values[torch.tensor([1, 2])].sort().values.cumsum(0).masked_fill(mask[:2], 0).to(torch.float16)
    assert not counted


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_pruners_on_every_family(family, slices, name):
    """A slice keeps the same tokens, whichever slices are encoded with it; kept tokens are the encoder's."""
    inputs, question = slices(*SIZES), question_for(family)
    pruner = PRUNERS[name](keep_ratio=0.5)
    (together,) = encode_and_prune_each(family, [pruner], inputs, question=question)
    (alone,) = encode_and_prune_each(family, [pruner], inputs, 1, question=question)
    (stock,) = encode_and_prune_each(family, [None], inputs)
    for record, other, tokens, every in zip(
        together.records, alone.records, together.tokens, stock.tokens, strict=True
    ):
        assert torch.equal(record.primary, other.primary)
        assert torch.equal(record.merged_into, other.merged_into)
        assert int(record.keep.sum()) == len(tokens) == max(len(every) // 2, 1)
        selected = record.primary[record.keep]
        torch.testing.assert_close(tokens[selected], every[record.primary], atol=2e-5, rtol=1e-4)
        assert bool(record.contextual.any()) == (name == "visionzip")


def test_cdpruner_asks_for_the_question(family, slices):
    with pytest.raises(SettingsError, match="give question"):
        encode_and_prune_each(family, [PRUNERS["cdpruner"]()], slices(SIZES[0]))


@pytest.mark.parametrize(
    ("count", "whole", "share", "expected"),
    [
        (32, range(32), 0.5, 15),  # layer 16 of 32
        (24, range(24), 0.375, 8),  # layer 9 of 24
        (27, range(27), 0.5, 13),
        (32, [7, 15, 23, 31], 0.5, 15),
        (32, [7, 15, 23, 31], 0.4, 15),
        (32, [7, 15, 23, 31], 0.01, 7),
        (1, range(1), 0.5, 0),
        (2, range(2), 0.999, 1),
    ],
)
def test_a_share_of_the_depth(count, whole, share, expected):
    """The nearest block that attends to the whole slice."""
    encoder = SimpleNamespace(attention_blocks=list(range(count)), whole_slice_blocks=list(whole))
    assert ModelFamily.attention_block(encoder, share) == expected


def test_a_share_names_the_same_signal_as_its_block(family, slices):
    blocks = list(family.attention_blocks)
    index = blocks.index(family.attention_block(0.5))
    named, shared = ReceivedAttention(index), ReceivedAttention(0.5)
    pruners = [PRUNERS["hiprune"](object_block=one.block, object_share=1.0) for one in (named, shared)]
    scored = encode_scored(family, pruners, slices(*SIZES))
    assert torch.equal(scored.signals[named], scored.signals[shared])
    first, second = (prune_scored(family, pruner, scored) for pruner in pruners)
    assert all(map(torch.equal, first.keep, second.keep))
