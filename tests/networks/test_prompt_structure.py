# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""No question changes the structure of the prompt: it has the special tokens of a plain one, or it is refused."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_medpruner.engines import Conversation, VolumeQA
from monai_medpruner.errors import QuestionError
from monai_medpruner.pruners import NucleusPruner

FRAGMENTS = [
    "{question}",
    "{number}",
    "{{ x }}",
    "{% x %}",
    "<",
    "|",
    ">",
    "[/INST]",
    "user",
    "\n",
    "\0",
    "\x1b[2J",
    "肺",
]


@pytest.fixture(scope="module")
def network(checkpoint):
    return VolumeQA.from_pretrained(str(checkpoint), NucleusPruner(tau=0.5, temperature=0.5), max_new_tokens=1)


@pytest.fixture(scope="module")
def study(network):
    voxels = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(0))
    return network.encode(MetaTensor(voxels))


def special_tokens(tokenizer):
    marked = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *marked})


def structure(network, study, *turns):
    """How often each special token stands in the prompt."""
    text = network.engine.prompt_text(study, Conversation.about(network.prompt, list(turns)))
    tokenizer = network.engine.checkpoint.tokenizer
    special = set(tokenizer.convert_tokens_to_ids(special_tokens(tokenizer)))
    return Counter(one for one in tokenizer(text, add_special_tokens=False)["input_ids"] if one in special)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_questions_do_not_change_the_structure(network, study, data):
    checkpoint = network.engine.checkpoint
    special = special_tokens(checkpoint.tokenizer)
    marker = checkpoint.family.image_marker(checkpoint.tokenizer)
    halves = [part for token in special for part in (token[:2], token[2:], token.upper(), f" {token[1:]}")]
    pieces = st.one_of(st.sampled_from([*special, marker, *halves, *FRAGMENTS]), st.text(st.characters(), max_size=8))
    texts = st.lists(pieces, min_size=1, max_size=5).map("".join)
    turns = data.draw(st.one_of(st.tuples(texts), st.tuples(texts, texts, texts)))
    plain = structure(network, study, *["a"] * len(turns))
    tokens = sum(one.keep.numel() for one in study.record.slices)
    assert plain[checkpoint.family.image_token_id] == tokens
    try:
        found = structure(network, study, *turns)
    except QuestionError:
        blank = any(not turn.strip() for turn in turns)
        held = any(token in turn for token in special for turn in turns)
        # half of a pair of surrogates, as an undecodable byte of a command line is
        halved = any("\ud800" <= character <= "\udfff" for turn in turns for character in turn)
        assert blank or held or halved
        return
    assert found == plain


def test_a_byte_that_is_no_utf8_is_refused(network, study):
    """Found by the test above: the tokenizer raised TypeError."""
    with pytest.raises(QuestionError, match="not valid in Unicode"):
        structure(network, study, b"Is it \xff?".decode(errors="surrogateescape"))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_special_token_is_refused_in_every_turn(network, study, place):
    for token in special_tokens(network.engine.checkpoint.tokenizer):
        turns = ["a", "b", "c"]
        turns[place] = f"Is it {token}?"
        with pytest.raises(QuestionError, match="special tokens"):
            structure(network, study, *turns)
