# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""BLEU, ROUGE and METEOR compared with published values, NLTK, ignite and reference implementations."""

from __future__ import annotations

import math
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.metrics import Bleu, RougeL, RougeN
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu, sentence_bleu
from nltk.translate.meteor_score import single_meteor_score
from text_oracles import bleu, meteor_exact, rouge_1_of_sets, rouge_score

from monai_medpruner.errors import SettingsError
from monai_medpruner.metrics import BleuScorer, MeteorScorer, RougeScorer, tokenize

PREDICTION, REFERENCE = "Right hilar region", "Right hilar region."
#: NLTK's documented pair
GUIDE = "It is a guide to action which ensures that the military always obeys the commands of the party"
GUIDE_REFERENCE = "It is a guide to action that ensures that the military will forever heed Party commands"
#: a small vocabulary, so that n-grams match and repeat
TEXTS = st.lists(st.sampled_from(["the", "liver", "is", "Large", "large.", "no", "2.5", "x-ray", "."]), max_size=9)
TEXT = st.builds(" ".join, TEXTS)


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [
        (BleuScorer(1), 0.667),
        (BleuScorer(1, "13a"), 0.717),
        (BleuScorer(4, smoothing="method1"), 0.240),
        (RougeScorer("1", "rouge"), 1.0),
        (RougeScorer("1", "rouge_score"), 1.0),
    ],
)
def test_known_values(scorer, expected):
    assert scorer.score(PREDICTION, REFERENCE) == pytest.approx(expected, abs=5e-4)


def test_values_of_the_rouge_packages():
    """Expected values were computed with rouge 1.0.1 and rouge_score 0.1.2."""
    prediction = "The liver is large. The liver has a cyst. No stones"
    reference = "There is a cyst in the liver. The spleen is large. There are no stones."
    expected = {
        ("1", "rouge"): 0.7619047570068028,
        ("l", "rouge"): 0.5714285665306124,
        ("1", "rouge_score"): 0.6923076923076923,
        ("l", "rouge_score"): 0.4615384615384615,
    }
    for (variant, definition), value in expected.items():
        assert RougeScorer(variant, definition).score(prediction, reference) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("smoothing", ["none", "method1"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@settings(max_examples=60, deadline=None)
@given(prediction=TEXT, reference=TEXT)
def test_bleu_is_nltks_and_the_definition(order, smoothing, prediction, reference):
    scorer, pair = BleuScorer(order, smoothing=smoothing), (prediction.split(), reference.split())
    function = SmoothingFunction().method1 if smoothing == "method1" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        stock = sentence_bleu([pair[1]], pair[0], weights=[1 / order] * order, smoothing_function=function)
    assert scorer.score(prediction, reference) == stock
    assert scorer.score(prediction, reference) == pytest.approx(bleu([pair], order, smoothing), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6))
def test_corpus_bleu_sums_counts(pairs):
    tokens = [(prediction.split(), reference.split()) for prediction, reference in pairs]
    for order in (1, 4):
        scorer = BleuScorer(order, corpus=True)
        value = scorer.aggregate([scorer.statistics(*pair) for pair in pairs])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            stock = corpus_bleu([[r] for _, r in tokens], [h for h, _ in tokens], weights=[1 / order] * order)
        assert value == stock
        assert value == pytest.approx(bleu(tokens, order, "none"), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(TEXT, TEXT)
def test_ignite_agrees_on_tokens(prediction, reference):
    """Ignite's metrics take tokens and fail on empty texts; its F at alpha 0.5 is the balanced one."""
    hypothesis, target = (text.lower().replace("-", " ").replace(".", " ").split() for text in (prediction, reference))
    if not hypothesis or not target:
        return
    bleu_1, rouge_1, rouge_l = Bleu(ngram=1, smooth="no_smooth"), RougeN(ngram=1, alpha=0.5), RougeL(alpha=0.5)
    for metric in (bleu_1, rouge_1, rouge_l):
        metric.update(([hypothesis], [[target]]))
    texts = " ".join(hypothesis), " ".join(target)
    assert BleuScorer(1).score(*texts) == pytest.approx(float(bleu_1.compute()), abs=1e-6)
    assert RougeScorer("1").score(*texts) == pytest.approx(rouge_1.compute()["Rouge-1-F"], abs=1e-6)
    assert RougeScorer("l").score(*texts) == pytest.approx(rouge_l.compute()["Rouge-L-F"], abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(TEXT, TEXT)
def test_rouge_matches_the_definition(prediction, reference):
    for variant in ("1", "l"):
        expected = rouge_score(prediction, reference, variant)
        assert RougeScorer(variant, "rouge_score").score(prediction, reference) == pytest.approx(expected, rel=1e-12)
    spaced = [" ".join(text.replace("2.5", "2").replace(".", " ").split()) for text in (prediction, reference)]
    assert RougeScorer("1", "rouge").score(*spaced) == pytest.approx(rouge_1_of_sets(*spaced), rel=1e-12)


def test_rouge_l_takes_the_union_over_sentences():
    """Lin's example: r = w1..w5, c1 = w1 w2 w6 w7 w8, c2 = w1 w3 w8 w9 w5: the union is w1 w2 w3 w5."""
    scorer = RougeScorer("l", "rouge")
    assert scorer.statistics("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5.", "w1 w2 w3 w4 w5.") == [4, 8, 5]
    # the other definition uses one subsequence of the whole text, which respects order
    assert RougeScorer("l").statistics("b a", "a b") == [1, 2, 2]


def test_rouge_definitions_differ_for_repeated_words():
    prediction, reference = "no no no lesion", "no lesion"
    assert RougeScorer("1", "rouge").score(prediction, reference) == pytest.approx(1.0, abs=1e-7)
    assert RougeScorer("1", "rouge_score").score(prediction, reference) == pytest.approx(2 / 3)
    assert RougeScorer("1", "rouge").score("mm-sized", "mm sized") == 0
    assert RougeScorer("1", "rouge_score").score("mm-sized", "mm sized") == 1


def test_rouge_truncates_only_the_prediction():
    scorer = RougeScorer("1", "rouge", max_characters=3)
    assert scorer.statistics("abc def", "abc def") == [1, 1, 2]
    assert RougeScorer("1", "rouge", lowercase=False).score("Liver", "liver") == 0


@pytest.mark.parametrize(
    ("tokenizer", "text", "expected"),
    [
        ("split", "Right  hilar\nregion.", ["Right", "hilar", "region."]),
        ("13a", "Right hilar region.", ["Right", "hilar", "region", "."]),
        (
            "13a",
            "2.5 cm, x-ray (T2-weighted) 3-4 &amp; 1,000",
            "2.5 cm , x-ray ( T2 - weighted ) 3 - 4 & 1,000".split(),
        ),
        ("13a", "end-\nless &quot;a/b&quot; it's", ["endless", '"', "a", "/", "b", '"', "it's"]),
        ("13a", "It measures 3. Is .5 more, or 4,", "It measures 3 . Is . 5 more , or 4 ,".split()),
        ("word_tokenize", "It can't be. So, no.", ["It", "ca", "n't", "be.", "So", ",", "no", "."]),
        ("space_before_dots", "No cyst. a\nb  2.5", ["No", "cyst", ".", "a\nb", "2", ".5"]),
        ("split", "", []),
        ("13a", " ", []),
        ("word_tokenize", "", []),
        ("space_before_dots", "", []),
    ],
)
def test_tokens(tokenizer, text, expected):
    assert tokenize(text, tokenizer) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["cat", "dog", "sun", "ox", "elk", "fig"]), unique=True, max_size=6),
    st.lists(st.sampled_from(["cat", "dog", "sun", "ox", "yak", "oat"]), unique=True, max_size=6),
)
def test_meteor_matches_the_definition(hypothesis, reference):
    score = MeteorScorer().score(" ".join(hypothesis), " ".join(reference))
    assert score == pytest.approx(meteor_exact(hypothesis, reference), rel=1e-12)


def test_meteor_matches_stems_and_ignores_case():
    scorer = MeteorScorer()
    assert scorer.name == "meteor-exact-stem"
    assert scorer.score("Lesions", "lesion") == pytest.approx(0.5)
    assert scorer.score("physician", "doctor") == 0
    assert MeteorScorer("13a").score("liver.", "liver") > MeteorScorer("split").score("liver.", "liver")


def test_meteor_with_wordnet(wordnet):
    scorer = MeteorScorer(wordnet=wordnet)
    assert scorer.name == "meteor"
    assert scorer.score(GUIDE, GUIDE_REFERENCE) == pytest.approx(0.6944, abs=5e-5)
    assert scorer.score("physician", "doctor") == pytest.approx(0.5)
    pair = "the physician saw a mass".split(), "a doctor saw the mass".split()
    assert scorer.score(*map(" ".join, pair)) == single_meteor_score(pair[1], pair[0], wordnet=wordnet) > 0
    assert scorer.score(*map(" ".join, pair)) > MeteorScorer().score(*map(" ".join, pair))


SCORERS = [
    BleuScorer(1),
    BleuScorer(4, "13a", corpus=True),
    BleuScorer(4, smoothing="method1"),
    RougeScorer("1", "rouge"),
    RougeScorer("l", "rouge"),
    RougeScorer("1"),
    RougeScorer("l"),
    MeteorScorer(),
]


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_common_properties_of_all_scorers(scorer):
    assert scorer.score("", REFERENCE) == 0
    assert scorer.score("", "") == 0
    assert scorer.score(REFERENCE, "") == 0
    assert scorer.score("...", "...") >= 0
    assert scorer.score("spleen", "liver") == 0
    long = "the liver has one small cyst"
    assert 0.99 < scorer.score(long, long) <= 1
    assert len(scorer.statistics(long, REFERENCE)) == scorer.width
    assert math.isnan(scorer.aggregate([]))
    rows = [scorer.statistics(*pair) for pair in [(long, long), ("", REFERENCE), ("a small cyst", long)]]
    assert scorer.aggregate(rows) == scorer.aggregate(rows[::-1])
    if not scorer.of_corpus:
        mean = sum(scorer.score(*pair) for pair in [(long, long), ("", REFERENCE), ("a small cyst", long)]) / 3
        assert scorer.aggregate(rows) == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BleuScorer(5), "order must be 1, 2, 3 or 4, got 5"),
        (lambda: BleuScorer(smoothing="method7"), "method7"),
        (lambda: BleuScorer(tokenizer="intl"), "13a"),
        (lambda: RougeScorer("2"), "'2'"),
        (lambda: RougeScorer("1", "files2rouge"), "files2rouge"),
        (lambda: MeteorScorer("intl"), "13a"),
        (lambda: tokenize("a", "intl"), "13a"),
    ],
)
def test_unknown_settings_are_rejected(make, message):
    with pytest.raises(SettingsError, match=message):
        make()
