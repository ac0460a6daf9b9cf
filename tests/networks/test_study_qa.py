# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""A study that is encoded once, and conversations about it."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_medpruner.errors import QuestionError
from monai_medpruner.networks import StudyQA, VolumeQA
from monai_medpruner.pruners import NucleusPruner

PRUNER = NucleusPruner(tau=0.5, temperature=0.5)


@pytest.fixture(scope="module")
def network(checkpoint):
    return StudyQA(str(checkpoint), PRUNER, max_new_tokens=6)


@pytest.fixture
def volume():
    voxels = torch.rand(1, 64, 96, 4, generator=torch.Generator().manual_seed(0))
    return MetaTensor(voxels, meta={"kept_indices": [1, 2, 5, 8], "source_depth": 9})


def test_answers_are_those_of_one_call(network, volume, checkpoint):
    study = network.encode_study(volume)
    reference = VolumeQA(str(checkpoint), PRUNER, max_new_tokens=6)
    expected = reference(volume[None], [["a?", "b?"]])[0]
    answers = [network.answer(study, text) for text in ("a?", "b?")]
    assert [text for text, _ in answers] == expected
    assert study.record.kept_tokens == reference.records[0].kept_tokens
    assert (study.record.slice_indices, study.record.total_slices) == ([1, 2, 5, 8], 9)
    for _, seconds in answers:
        assert (seconds["encode"], seconds["select"]) == (0.0, 0.0)
        assert seconds["prefill"] > 0


def test_size_is_that_of_the_tokens(network, volume):
    study = network.encode_study(volume)
    width = network.vlm.model.config.get_text_config().hidden_size
    layers = 1 + len(study.slices.side_rows)
    assert study.tensor_bytes == sum(study.record.kept_tokens) * width * layers * 4


def test_conversations(network, volume):
    """The study stays in the first turn alone, and all turns reach the model in order."""
    study = network.encode_study(volume)
    arguments = study.slices.grids, study.record.slice_indices
    text = network.prompt_text(*arguments, ["First?", "Yes {x}.", "Second?", "No.", "Third?"])
    places = [text.index(one) for one in ("First?", "Yes {x}.", "Second?", "No.", "Third?")]
    assert places == sorted(places)
    assert text.startswith(network.prompt_text(*arguments, "First?").split("First?")[0] + "First?")
    image = network.vlm.family.image_token_id
    tokens = network._tokenizer(text)["input_ids"]
    assert sum(one == image for one in tokens) == sum(record.keep.numel() for record in study.record.slices)
    assert isinstance(network.answer(study, "Second?", [("First?", "Yes {x}.")])[0], str)


@pytest.mark.parametrize(
    "question", [[], ["a?", "b"], ["a?", "", "b?"], ["a?", 3, "b?"], ["a?", "<|im_end|>", "b?"]], ids=repr
)
def test_conversations_that_cannot_go_on(network, question):
    network.vlm  # noqa: B018 - loads the tokenizer
    with pytest.raises(QuestionError):
        network.prompt_text([(1, 1)], [0], question)
