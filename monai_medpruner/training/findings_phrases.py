# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Phrases of the captions of slices, true ones and wrong ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from monai_medpruner.training.findings_volumes import FindingsVolume
from monai_medpruner.training.step_batches import StepBatches

__all__ = [
    "PHRASE_PARTS",
    "Phrase",
    "PhraseBatches",
    "caption_phrases",
    "phrase_terms",
    "says",
    "square_looks",
]

#: what a phrase can say of a finding, in the order of the captions, and the words for it
PHRASE_PARTS: dict[str, tuple[str, ...]] = {
    "density": ("hyperdense", "hypodense"),
    "size": tuple(f"{number} mm" for number in range(2, 24, 2)),
    "side": ("right", "left"),
    "depth": ("anterior", "posterior"),
    "row": tuple(f"row {number}" for number in range(1, 7)),
    "column": tuple(f"column {number}" for number in range(1, 7)),
    "contact": ("touching the skull",),
    # of the square at a row and a column, from its pixels alone
    "brightness": ("dark", "gray", "light", "white"),
    "bright spot": ("no bright spot", "weak bright spot", "strong bright spot"),
    "dark spot": ("no dark spot", "weak dark spot", "strong dark spot"),
}
#: index into the words of each part of :data:`PHRASE_PARTS`; -1 where the phrase does not mention it
Phrase = tuple[int, ...]
_DENSITY, _SIZE, _SIDE, _DEPTH, _ROW, _COLUMN, _CONTACT, *_LOOKS = range(len(PHRASE_PARTS))
_COUNTS = tuple(len(words) for words in PHRASE_PARTS.values())
_STARTS = tuple(int(start) for start in np.cumsum((0, *_COUNTS[:-1])))
_PATTERN = re.compile(", ".join([" ".join(f"({'|'.join(words)})" for words in list(PHRASE_PARTS.values())[:_CONTACT])]))
_NO_LOOK = (-1,) * len(_LOOKS)
_BRIGHTNESS = (0.1, 0.4, 0.55)  # bounds of the words for the mean of a square, of the window
_SPOT = (0.07, 0.45)  # and of how far its brightest or darkest block of 2 by 2 pixels lies from the median
_TRIES = 20
_NEXT_SIZE = 1  # sizes this many words apart are both true, because a diameter lies between two of them


def caption_phrases(caption: str) -> list[Phrase]:
    """Return what a caption says of each finding; none for a slice without."""
    phrases = []
    for one in caption.split(", "):
        if found := _PATTERN.match(one):
            words = zip(found.groups(), PHRASE_PARTS.values(), strict=False)
            contact = -1 if one == found.group() else 0
            phrases.append((*(choices.index(word) for word, choices in words), contact, *_NO_LOOK))
    return phrases


def square_looks(slices: np.ndarray, side: int) -> np.ndarray:
    """Return words for what each square of a slice looks like, from its pixels alone.

    Args:
        slices: uint8 ``(S, H, W)``.
        side: number of rows and of columns of squares.

    Returns:
        int64 ``(S, side, side, 3)``, indices of the words for brightness, bright spot and dark spot.
    """
    number, height, _ = slices.shape
    blocks = slices.reshape(number, height // 2, 2, height // 2, 2).mean((2, 4)) / 255
    inner = height // 2 // side
    squares = blocks.reshape(number, side, inner, side, inner).transpose(0, 1, 3, 2, 4).reshape(number, side, side, -1)
    median = np.median(squares, 3)
    spots = [np.digitize(squares.max(3) - median, _SPOT), np.digitize(median - squares.min(3), _SPOT)]
    return np.stack([np.digitize(squares.mean(3), _BRIGHTNESS), *spots], -1)


def says(caption: Sequence[Phrase], phrase: Phrase) -> bool:
    """Whether one finding of a caption has everything that a phrase mentions."""

    def agrees(part: int, said: int, true: int) -> bool:
        return said < 0 or (abs(said - true) <= _NEXT_SIZE if part == _SIZE else said == true)

    return any(all(agrees(part, *pair) for part, pair in enumerate(zip(phrase, one, strict=True))) for one in caption)


def phrase_terms(phrases: Sequence[Phrase]) -> np.ndarray:
    """Return which of all words each phrase has, float32 ``(Q, words)``."""
    terms = np.zeros((len(phrases), sum(_COUNTS)), dtype=np.float32)
    for row, phrase in enumerate(phrases):
        for start, word in zip(_STARTS, phrase, strict=True):
            if word >= 0:
                terms[row, start + word] = 1
    return terms


class PhraseBatches(StepBatches):
    """Single slices, each with phrases that are true of it and phrases that are not.

    A phrase is a part of the caption; half of these have one word changed. Others are phrases of other captions. As
    many phrases say what a square looks like, be it a finding, bone or a ventricle, in words that follow from its
    pixels alone. They teach the text which tokens a place means; findings are too few for that. Small findings come
    after large ones.

    Args:
        volumes: volumes to sample from.
        batch_size: number of slices per batch.
        phrases: number of phrases about findings per slice, and number of phrases about squares.
        finding_share: share of the slices that show a finding.
        large_epochs: number of first epochs without the slices with the smallest findings: first the 40 % with the
            largest ones, then more and more.
        steps: see :class:`~.step_batches.StepBatches`.
        seed: see :class:`~.step_batches.StepBatches`.
    """

    def __init__(
        self,
        volumes: Sequence[FindingsVolume],
        batch_size: int,
        phrases: int,
        finding_share: float,
        large_epochs: int,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__(steps, seed)
        self.volumes, self.batch_size, self.phrases = volumes, batch_size, phrases
        self.finding_share, self.large_epochs = finding_share, large_epochs
        captions = [
            (number, index, caption_phrases(caption))
            for number, volume in enumerate(volumes)
            for index, caption in enumerate(volume.captions)
        ]
        self.without = [one for one in captions if not one[2]]
        with_finding = [one for one in captions if one[2]]
        self.with_finding = sorted(with_finding, key=lambda one: -min(phrase[_SIZE] for phrase in one[2]))
        self.all_phrases = [phrase for *_, said in with_finding for phrase in said]

    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """Return slices with their phrases, see :meth:`batch`."""
        part = min(0.4 + 0.6 * (self.epoch - 1) / self.large_epochs, 1) if self.large_epochs else 1
        count = max(round(part * len(self.with_finding)), 1)
        chosen = []
        for _ in range(self.batch_size):
            shown, size = (self.with_finding, count) if generator.uniform() < self.finding_share else (self.without, 0)
            chosen.append(shown[int(generator.integers(size or len(shown)))])
        return self.batch(chosen, generator)

    def batch(
        self, chosen: Sequence[tuple[int, int, list[Phrase]]], generator: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """Return ``image``, uint8 ``(S, H, W)``; ``terms``, ``(S, Q, words)``; ``true``, ``(S, Q)``; ``changed``.

        Args:
            chosen: numbers of volume and slice, and what the caption says.
            generator: random generator of the phrases.

        Returns:
            as above, Q being twice ``phrases``; ``changed``, int64 ``(S, Q)``, is the part of a phrase that was
            changed, -1 where none was, and the number of parts for phrases of other captions.
        """
        terms, true, changed = [], [], []
        image = np.stack([self.volumes[number].slices[index] for number, index, _ in chosen])
        looks = square_looks(image, _COUNTS[_ROW])
        for row, (*_, caption) in enumerate(chosen):
            drawn = [self._phrase(caption, generator) for _ in range(self.phrases)]
            squares = [_square_phrase(looks, row, generator) for _ in range(self.phrases)]
            terms.append(phrase_terms([phrase for phrase, _ in (*drawn, *squares)]))
            true.append([says(caption, phrase) for phrase, _ in drawn] + [part < 0 for _, part in squares])
            changed.append([part for _, part in (*drawn, *squares)])
        return {
            "image": torch.from_numpy(image),
            "terms": torch.from_numpy(np.stack(terms)),
            "true": torch.tensor(true).float(),
            "changed": torch.tensor(changed),
        }

    def _phrase(self, caption: list[Phrase], generator: np.random.Generator) -> tuple[Phrase, int]:
        """Draw a phrase about a slice, and the part that was changed."""
        if not caption or generator.uniform() < 0.2:
            said = list(self.all_phrases[int(generator.integers(len(self.all_phrases)))])
            kept = generator.uniform(size=len(said)) < 0.6  # the parts that are not left out
            return (said[0], *(one if keep else -1 for one, keep in zip(said[1:], kept[1:], strict=True))), len(said)
        true = caption[int(generator.integers(len(caption)))]
        said = list(true)
        _leave_out(said, generator)
        mentioned = [part for part, word in enumerate(said) if word >= 0] + [_CONTACT] * (true[_CONTACT] < 0)
        if _DENSITY in mentioned:
            mentioned += [_DENSITY, _DENSITY]  # the word that needs contrast, not place, and is learned last
        part = mentioned[int(generator.integers(len(mentioned)))]
        # a touching finding is not said not to touch, so contact can only be added
        if generator.uniform() < 0.5 or (part == _CONTACT and true[part] == 0):
            return tuple(said), -1
        if part == _CONTACT:
            said[part] = 0
        else:
            apart = 2 if part == _SIZE else 1
            others = [word for word in range(_COUNTS[part]) if abs(word - true[part]) >= apart]
            said[part] = others[int(generator.integers(len(others)))]
        return tuple(said), part


def _leave_out(said: list[int], generator: np.random.Generator) -> None:
    """Leave out parts of a phrase, so that at least one is left."""
    whole = list(said)
    place = generator.uniform()
    dropped = {_ROW, _COLUMN} if place < 0.25 else {_SIDE, _DEPTH} if place < 0.5 else set()
    if 0.5 <= place < 0.65:
        dropped = {_SIDE, _DEPTH, _ROW, _COLUMN}
    dropped |= {part for part in (_DENSITY, _SIZE, _CONTACT) if generator.uniform() < 0.3}
    for part in dropped:
        said[part] = -1
    if max(said) < 0:
        said[_DENSITY] = whole[_DENSITY]


def _square_phrase(looks: np.ndarray, row: int, generator: np.random.Generator) -> tuple[Phrase, int]:
    """Draw a phrase about a square of a slice of a batch, and the part that is not true of it, -1 if it is true.

    A wrong word is that of another slice at the same place, and places where all slices look alike are left out as far
    as possible: so the place alone does not tell whether a phrase is true.
    """
    for _ in range(_TRIES):
        place = generator.integers(looks.shape[1:3]).tolist()
        look = int(generator.integers(looks.shape[3]))
        words = looks[:, place[0], place[1], look]
        others = words[words != words[row]]
        if len(others):
            break
    said = [-1] * len(PHRASE_PARTS)
    said[_ROW], said[_COLUMN] = place
    said[_LOOKS[look]] = int(words[row])
    if not len(others) or generator.uniform() < 0.5:
        return tuple(said), -1
    said[_LOOKS[look]] = int(others[int(generator.integers(len(others)))])
    return tuple(said), _LOOKS[look]
