# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Which tokens of a real encoder each selector keeps, with as many tokens for each."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from real_encoder_features import BLOCKS, GRID, Source, planes, resized
from torch.nn.functional import normalize

from monai_medpruner.networks.slice_signals import anchor_slices_of
from monai_medpruner.pruners import (
    AnchorSlices,
    AveragePoolingPruner,
    ClassAttention,
    DivPrunePruner,
    HiPrunePruner,
    Keys,
    MedPrunerReleasedPruner,
    NucleusPruner,
    RandomTokensPruner,
    RareTokensPruner,
    ReceivedAttention,
    SliceTokens,
    TokenPruner,
    VisionZipPruner,
)
from monai_medpruner.pruners.budget import limit_by_score

#: kept tokens ``(S, M)``, and their values ``(S, M, C)`` where they are other than the encoder's
Kept = tuple[torch.Tensor, torch.Tensor | None]
SINK_ATTENTION = 3.0  # a token that receives more than so many times the mean attention counts as a sink


@dataclass(frozen=True, eq=False)
class Features:
    """The S slices of one volume: M tokens each.

    Args:
        tokens: float16 ``(S, M, C)``.
        keys: float16 ``(S, M, d)``, of the last block.
        norms: ``(S, M)`` of the tokens before the last norm.
        received: ``(S, 4, M)``, attention received in :data:`BLOCKS`.
        class_: ``(S, 12, M)``, attention of the class token in every block.
        organs: int64 ``(S, M)``, 0 where there is none.
        body: bool ``(S, M)``.
        intensity: ``(S, M)``, mean of the pixels, 0 to 1.
        group: int64 ``(S,)``, block of slices or volume.
        anchors: bool ``(S,)``, slices that the anchor rule keeps at the released threshold.
    """

    tokens: torch.Tensor
    keys: torch.Tensor
    norms: torch.Tensor
    received: torch.Tensor
    class_: torch.Tensor
    organs: torch.Tensor
    body: torch.Tensor
    intensity: torch.Tensor
    group: torch.Tensor
    anchors: torch.Tensor

    def slices(self, valid: torch.Tensor | None = None) -> Iterator[SliceTokens]:
        """Each slice as a batch of its own; other tokens than ``valid`` (S, M) are left out."""
        for index in range(len(self.tokens)):
            signals = {
                ReceivedAttention(): self.received[index, -1:],
                ReceivedAttention(0.5): self.received[index, BLOCKS.index(5)][None],
                ClassAttention(): self.class_[index, -1:],
                Keys(): self.keys[index][None].float(),
            }
            mask = torch.ones(1, GRID * GRID, dtype=torch.bool) if valid is None else valid[index : index + 1]
            yield SliceTokens(self.tokens[index][None].float(), mask, [(GRID, GRID)], signals, numbers=[index])

    def volume(self) -> SliceTokens:
        """All slices as one batch, without the tokens' values."""
        shape = self.organs.shape
        signals = {
            ReceivedAttention(): self.received[:, -1],
            Keys(): self.keys.float(),
            AnchorSlices(): self.anchors,
        }
        valid = torch.ones(shape, dtype=torch.bool)
        return SliceTokens(torch.zeros(*shape, 1), valid, [(GRID, GRID)] * len(valid), signals)


def read_features(source: Source, number: int, folder: Path) -> Features:
    """Read a volume that :func:`real_encoder_features.encode_all` wrote, its number among those of its data set."""
    found = list(planes(source))
    indices = torch.tensor([index for index, *_ in found])
    parts = [dict(np.load(folder / f"{number:03d}_{index:04d}.npz")) for index in indices.tolist()]
    names = ("tokens", "keys", "norms", "received", "class", "organs", "body", "intensity")
    stacked = {name: torch.from_numpy(np.stack([part[name] for part in parts])) for name in names}
    group = torch.full_like(indices, number) if source.group is None else indices // source.group
    pixels = [2 * resized(plane, "bilinear") - 1 for _, _, plane, _, _ in found]
    anchors = anchor_slices_of(pixels, AnchorSlices().threshold)
    return Features(class_=stacked.pop("class"), **stacked, group=group, anchors=anchors)


def highest(score: torch.Tensor, count: int, valid: torch.Tensor) -> torch.Tensor:
    """The ``count`` highest valid tokens of each slice, equal ones in their order; all where there are fewer."""
    order = score.masked_fill(~valid, -torch.inf).sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(valid).scatter(1, order, True) & valid


def in_body(features: Features) -> torch.Tensor:
    """Tokens of the body; all tokens of a slice without any."""
    return features.body | ~features.body.any(1, keepdim=True)


def pruned(
    pruner: Callable[[float], TokenPruner], body: bool = False, limit: bool = True
) -> Callable[[Features, float], Kept]:
    """A selector that runs a pruner slice by slice, with or without what lies outside the body.

    Args:
        pruner: function of the share.
        body: leave out the tokens outside the body. The number of kept tokens is a share of all tokens in any case.
        limit: whether the pruner gets the number as a limit; otherwise its own share decides.
    """

    def select(features: Features, share: float) -> Kept:
        masks, values = [], []
        valid = in_body(features) if body else None
        for one in features.slices(valid):
            count = min(int(share * GRID * GRID), int(one.valid.sum()))
            found = pruner(share)(one, count if limit else None)
            masks.append(found.keep[0])
            values.append(found.tokens[0].half() if found.contextual.any() else one.tokens[0].half())
        return torch.stack(masks), torch.stack(values)

    return select


def whole(pruner: TokenPruner) -> Callable[[Features, float], Kept]:
    """A selector that runs a pruner on all slices together, with a limit for the volume."""

    def select(features: Features, share: float) -> Kept:
        slices = features.volume()
        return pruner(slices, int(share * GRID * GRID) * len(slices.valid)).keep, None

    return select


def by_score(score: Callable[[Features], torch.Tensor], body: bool = True) -> Callable[[Features, float], Kept]:
    """A selector that keeps the highest scores ``(S, M)`` of each slice."""

    def select(features: Features, share: float) -> Kept:
        valid = in_body(features) if body else torch.ones_like(features.body)
        return highest(score(features), int(share * GRID * GRID), valid), None

    return select


def _random_scores(features: Features) -> torch.Tensor:
    return torch.rand(features.organs.shape, generator=torch.Generator().manual_seed(0))


def _even(features: Features, share: float) -> Kept:
    """Body tokens at even distances in their order along rows, as many as the share allows."""
    valid, count = in_body(features), int(share * GRID * GRID)
    keep = torch.zeros_like(valid)
    for index, mask in enumerate(valid):
        places = mask.nonzero().flatten()
        chosen = min(count, len(places))
        keep[index, places[torch.linspace(0, len(places) - 1, chosen).round().long()]] = True
    return keep, None


def _received(features: Features) -> torch.Tensor:
    return features.received[:, -1]


@lru_cache(maxsize=2)
def _rare(features: Features, body: bool) -> torch.Tensor:
    """Distance of each token to its nearest neighbors in the volume, or among the volume's body tokens."""
    valid = in_body(features) if body else torch.ones_like(features.body)
    slices = SliceTokens(features.tokens.float(), valid, [(GRID, GRID)] * len(valid))
    return RareTokensPruner().score(slices)


def _rare_of_volume(features: Features, share: float) -> Kept:
    """What ``rare_tokens`` keeps of the volume, at least one token a slice."""
    score, valid = _rare(features, False), torch.ones_like(features.body)
    nothing = torch.zeros(len(valid), dtype=torch.long)
    return limit_by_score(score, valid, valid, nothing, 1, int(share * GRID * GRID) * len(valid)), None


def _without_sinks(features: Features) -> torch.Tensor:
    """Received attention, where tokens of more than three times the mean count as the mean."""
    score = _received(features)
    return torch.where(score > SINK_ATTENTION, torch.ones_like(score), score)


def _change(features: Features) -> torch.Tensor:
    """Cosine distance of each token to the one at its place in the slice before; the first slice takes the second's."""
    directions = normalize(features.tokens.float(), dim=-1)
    if len(directions) < 2:
        return _received(features)
    distance = 1 - (directions[1:] * directions[:-1]).sum(-1)
    return torch.cat([distance[:1], distance])


def _ranks(score: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Rank of each valid token in its slice, 0 for the lowest, in units of all tokens."""
    return score.masked_fill(~valid, -torch.inf).argsort(dim=1).argsort(dim=1) / score.shape[1]


def _received_and_change(features: Features) -> torch.Tensor:
    valid = in_body(features)
    return _ranks(_received(features), valid) + _ranks(_change(features), valid)


def facility_location(similarity: np.ndarray, weight: np.ndarray, count: int) -> list[int]:
    """Greedy facility location: the sum over tokens of weight times the similarity to the nearest chosen one.

    A gain never grows, so a token is looked at again only where its last gain is the highest (Minoux, 1978).

    Args:
        similarity: ``(N, N)``, symmetric, at least 0.
        weight: ``(N,)``, at least 0.
        count: tokens to choose, at most N.
    """
    nearest = np.zeros(len(weight))
    heap = [(-gain, token, 0) for token, gain in enumerate((similarity @ weight).tolist())]
    heapq.heapify(heap)
    order: list[int] = []
    while len(order) < count:
        _, token, chosen = heapq.heappop(heap)
        if chosen == len(order):
            order.append(token)
            nearest = np.maximum(nearest, similarity[token])
        else:
            gain = float(np.maximum(similarity[token] - nearest, 0) @ weight)
            heapq.heappush(heap, (-gain, token, len(order)))
    return order


def _coverage(features: Features, share: float) -> Kept:
    """Facility location on body tokens, weighted by received attention; similarity of what differs from their mean."""
    valid, count = in_body(features), int(share * GRID * GRID)
    keep = torch.zeros_like(valid)
    for index, mask in enumerate(valid):
        places = mask.nonzero().flatten()
        values = normalize(features.tokens[index, places].float(), dim=-1)
        directions = normalize(values - values.mean(0), dim=-1)
        similarity = (directions @ directions.T).clamp(min=0).double().numpy()
        weight = _received(features)[index, places].double().numpy()
        keep[index, places[facility_location(similarity, weight, min(count, len(places)))]] = True
    return keep, None


#: registered pruners first, then the same within the body, then combinations; merging as each one does by default,
#: but for nucleus, whose contextual tokens would take half of a budget of 10 %
SELECTORS: dict[str, Callable[[Features, float], Kept]] = {
    "random_tokens": pruned(lambda share: RandomTokensPruner(keep_ratio=1.0, contextual_ratio=0.0), limit=True),
    "average_pooling": pruned(lambda share: AveragePoolingPruner()),
    "nucleus": pruned(lambda share: NucleusPruner(tau=1.0, contextual_ratio=0.0)),
    "nucleus, one for the volume": whole(NucleusPruner(tau=1.0, contextual_ratio=0.0, scope="volume")),
    "medpruner_released": whole(MedPrunerReleasedPruner(tau=1.0, contextual_ratio=0.0)),
    "visionzip": pruned(lambda share: VisionZipPruner(keep_ratio=share), limit=False),
    "visionzip, class token": pruned(lambda share: VisionZipPruner(keep_ratio=share, attention="class"), limit=False),
    "hiprune": pruned(lambda share: HiPrunePruner(keep_ratio=share), limit=False),
    "divprune": pruned(lambda share: DivPrunePruner(keep_ratio=share), limit=False),
    "rare_tokens": _rare_of_volume,
    "body, random": by_score(_random_scores),
    "body, even": _even,
    "body, nucleus": pruned(lambda share: NucleusPruner(tau=1.0, contextual_ratio=0.0), body=True),
    "body, class token": by_score(lambda features: features.class_[:, -1]),
    "body, class token of the middle": by_score(lambda features: features.class_[:, 5]),
    "body, attention without sinks": by_score(_without_sinks),
    "body, change to the slice before": by_score(_change),
    "body, rare tokens": by_score(lambda features: _rare(features, True)),
    "body, attention and change": by_score(_received_and_change),
    "body, attention and coverage": _coverage,
    "body, brightness": by_score(lambda features: features.intensity),
}
