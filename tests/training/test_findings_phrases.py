# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Phrases of captions: what they say of a slice, which are drawn, and what learns from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from monai_medpruner.data.phantom import FindingsSettings, generate_findings
from monai_medpruner.training import (
    FINDINGS_SHAPE,
    PHRASE_PARTS,
    PhraseBatches,
    PhraseContrast,
    PhraseLoss,
    caption_phrases,
    findings_volume,
    phrase_terms,
    prepare_phrase_batch,
    says,
    square_contrast,
    square_looks,
    untrained_network,
)
from monai_medpruner.training.vision_warm_up import is_language

SIDE = 6
SETTINGS = FindingsSettings(in_plane_sizes=(96,), depth=(8, 8))
PARTS = list(PHRASE_PARTS)
WORDS = [word for words in PHRASE_PARTS.values() for word in words]


@pytest.fixture(scope="module")
def volumes():
    return [findings_volume(generate_findings(seed, SETTINGS), SIDE) for seed in range(4)]


@pytest.fixture(scope="module", params=["qwen3_vl", "gemma3"])
def contrast(request, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp(request.param))
    return PhraseContrast(untrained_network(request.param, folder, device="cpu", shape=FINDINGS_SHAPE))


def phrase(**words):
    """The phrase with these words, by part."""
    return tuple(PHRASE_PARTS[part].index(words[part]) if part in words else -1 for part in PARTS)


def said_words(terms):
    """The words of a row of terms, by part."""
    words = [word for word, said in zip(WORDS, terms, strict=True) if said]
    return {part: word for part, choices in PHRASE_PARTS.items() for word in choices if word in words}


FIRST = "hyperdense 8 mm right anterior row 2 column 3 touching the skull"
SECOND = "hypodense 14 mm left posterior row 5 column 4"


def test_phrases_of_a_caption():
    one, two = caption_phrases(f"{FIRST}, {SECOND}")
    shared = {"density": "hyperdense", "size": "8 mm", "side": "right", "depth": "anterior"}
    assert one == phrase(**shared, row="row 2", column="column 3", contact="touching the skull")
    shared = {"density": "hypodense", "size": "14 mm", "side": "left", "depth": "posterior"}
    assert two == phrase(**shared, row="row 5", column="column 4")
    assert caption_phrases("no finding") == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"density": "hyperdense"}, True),
        ({"density": "hyperdense", "side": "left"}, False),  # each is true of a finding, but not of the same one
        ({"side": "left", "size": "12 mm"}, True),  # neighboring sizes agree
        ({"side": "left", "size": "10 mm"}, False),
        ({"contact": "touching the skull", "row": "row 2"}, True),
        ({"contact": "touching the skull", "row": "row 5"}, False),
        ({"column": "column 6"}, False),
    ],
)
def test_what_a_caption_says(words, expected):
    assert says(caption_phrases(f"{FIRST}, {SECOND}"), phrase(**words)) is expected
    assert not says([], phrase(**words))


def test_terms_are_the_words_of_a_phrase():
    words = {"density": "hypodense", "row": "row 6", "dark spot": "no dark spot"}
    (terms,) = phrase_terms([phrase(**words)])
    assert said_words(terms) == words
    assert terms.sum() == 3


def test_looks_of_painted_squares():
    image = np.full((1, 96, 96), 120, dtype=np.uint8)
    image[0, :16, :16] = 0
    image[0, 16:32, 80:] = 255
    image[0, 2 * 16 + 4 : 2 * 16 + 6, 3 * 16 + 8 : 3 * 16 + 10] = 160  # one block, 40 of 255 above the rest
    image[0, 5 * 16 : 5 * 16 + 2, 14:16] = 0
    looks = square_looks(image, SIDE)[0]
    names = {(row, column): tuple(looks[row, column].tolist()) for row in range(6) for column in range(6)}
    assert names.pop((0, 0)) == (0, 0, 0)
    assert names.pop((1, 5)) == (3, 0, 0)
    assert names.pop((2, 3)) == (2, 1, 0)
    assert names.pop((5, 0)) == (2, 0, 2)
    assert set(names.values()) == {(2, 0, 0)}


def test_phrases_are_true_or_changed_in_one_word(volumes):
    batches = PhraseBatches(volumes, 6, 20, 1.0, 0, 1, 0)
    batch = batches.batch(batches.with_finding[:6], np.random.default_rng(0))
    words = PARTS.index("brightness")
    looks = square_looks(batch["image"].numpy(), SIDE)
    kinds = set()
    for row, (*_, caption) in enumerate(batches.with_finding[:6]):
        for terms, true, changed in zip(batch["terms"][row], batch["true"][row], batch["changed"][row], strict=True):
            one = phrase(**said_words(terms))
            kinds.add(int(changed))
            if changed < 0:
                assert true
            if changed < words and max(one[words:]) < 0:
                assert bool(true) == says(caption, one)
            elif max(one[words:]) >= 0:
                here = looks[row, one[PARTS.index("row")], one[PARTS.index("column")]]
                assert bool(true) == all(
                    word in (-1, own) for word, own in zip(one[words:], here.tolist(), strict=True)
                )
    assert kinds >= {-1, PARTS.index("density"), PARTS.index("brightness"), len(PARTS)}
    # half of the phrases about squares are true
    assert batch["true"][:, 20:].mean() == pytest.approx(0.5, abs=0.15)


def test_batches_begin_with_large_findings(volumes):
    batches = PhraseBatches(volumes, 16, 2, 1.0, 10, 1, 0)
    sizes = [min(one[PARTS.index("size")] for one in caption) for *_, caption in batches.with_finding]
    assert sizes == sorted(sizes, reverse=True)
    first = torch.from_numpy(
        np.stack(
            [volumes[number].slices[index] for number, index, _ in batches.with_finding[: round(0.4 * len(sizes))]]
        )
    )
    assert all((first == image).flatten(1).all(1).any() for image in batches[0]["image"])
    batches.epoch = 11
    assert not all((first == image).flatten(1).all(1).any() for image in batches[0]["image"])


def test_text_pools_all_tokens_of_its_own_slice(contrast, volumes):
    batch = PhraseBatches(volumes, 3, 4, 0.5, 0, 1, 0)[0]
    with torch.no_grad():
        together, _ = contrast(batch)
        parts = [{name: value[row : row + 1] for name, value in batch.items()} for row in range(3)]
        alone = torch.cat([contrast(part)[0] for part in parts])
        mirrored, _ = contrast({**batch, "image": batch["image"].flip(2)})
    assert together.shape == (3, 8)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together, mirrored, atol=1e-4)


def test_contrast_trains_the_encoder_and_not_the_language_model(contrast, volumes):
    moved, label = prepare_phrase_batch(PhraseBatches(volumes, 2, 4, 1.0, 0, 1, 0)[0])
    loss = PhraseLoss()(contrast(moved), label)
    loss.backward()
    trained = {name for name, one in contrast.named_parameters() if one.grad is not None}
    assert not any(is_language(name) for name in trained)
    vision = [name for name, _ in contrast.named_parameters() if not is_language(name)]
    assert len(trained) > 0.9 * len(vision)
    contrast.zero_grad(set_to_none=True)


def test_contrast_of_blocks(volumes):
    image = torch.from_numpy(volumes[0].slices[3:5])
    result = square_contrast(image)
    assert result.shape == (2, SIDE**2, 64)
    for token in (0, 7, 14, 21):
        row, column = divmod(token, SIDE)
        square = image[1].double().numpy()[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] / 255
        blocks = np.array([square[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for i in range(8) for j in range(8)])
        expected = np.clip(10 * (blocks - np.sort(blocks)[31]), -3, 3)  # torch takes the lower of the two middle ones
        np.testing.assert_allclose(result[1, token].numpy(), expected, atol=1e-4)


def test_loss_of_known_odds(volumes):
    logits, true = torch.tensor([[0.0, 2.0], [-1.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    odds = torch.tensor([0.0, -2.0, 1.0, 3.0])
    image = torch.from_numpy(volumes[0].slices[:2])
    contrast = square_contrast(image)
    expected = -F.sigmoid(odds).log().mean().item()
    assert PhraseLoss()((logits, contrast), (true, image)).item() == pytest.approx(expected, abs=1e-6)
    assert PhraseLoss()((logits, contrast + 2), (true, image)).item() == pytest.approx(expected + 4, abs=1e-5)
