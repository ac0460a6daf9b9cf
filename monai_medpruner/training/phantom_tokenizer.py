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

"""A small tokenizer whose words are those of the phantoms' questions; any other text passes byte by byte."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from monai_medpruner.data.phantom import QUESTIONS
from monai_medpruner.metrics import find_protocol
from monai_medpruner.networks.families import ModelFamily

__all__ = ["phantom_tokenizer"]

_PAD, _TURN, _END = "<|pad|>", "<|im_start|>", "<|im_end|>"
_VOCABULARY = 512


def phantom_tokenizer(family: type[ModelFamily]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a chat template.

    Its merges are learned from the questions, choices and answers, so that each of their words is one token.

    Args:
        family: whose special tokens and way of writing an image it gets.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=_VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_texts(), trainer)
    special = [_PAD, _TURN, _END, *family.tiny_tokens.values()]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    template = (
        "{% for message in messages %}" + _TURN + "{{ message.role }}\n"
        "{% for part in message.content %}{% if part.type == 'image' %}" + family.tiny_image + "{% else %}"
        "{{ part.text }}{% endif %}{% endfor %}" + _END + "\n{% endfor %}"
        "{% if add_generation_prompt %}" + _TURN + "assistant\n{% endif %}"
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        additional_special_tokens=[_TURN, *family.tiny_tokens.values()],
        chat_template=template,
        **{name.removesuffix("_id"): token for name, token in family.tiny_tokens.items() if name.endswith("_token_id")},
    )


def _texts() -> list[str]:
    """Every question in every form it is asked in, and every answer, as it begins an answer and within a list."""
    protocol = find_protocol("meduni-vqa")
    texts = ["user\n", "assistant\n"]
    for question, choices in QUESTIONS.values():
        for shift in range(len(choices)):
            listed = dict(zip("ABCD", (*choices[shift:], *choices[:shift]), strict=False))
            texts.append(protocol.prompt(question, listed))
        texts += [protocol.prompt(question), question, *choices]
    return texts
