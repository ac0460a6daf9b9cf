# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Small tokenizers for small models: any text passes byte by byte, and may pass in longer pieces."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from monai_medpruner.testing.tiny_models import TinyModel

__all__ = ["byte_tokenizer"]

_PAD, _TURN, _END = "<|pad|>", "<|im_start|>", "<|im_end|>"


def byte_tokenizer(model: TinyModel, texts: Sequence[str] = (), vocabulary: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a chat template.

    Args:
        model: whose special tokens and way of writing an image it gets.
        texts: merges are learned from; without them each byte is a token.
        vocabulary: number of tokens with the merges, without the special ones.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if texts:
        trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
    special = [_PAD, _TURN, _END, *model.tokens.values()]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    template = (
        "{% for message in messages %}" + _TURN + "{{ message.role }}\n"
        "{% for part in message.content %}{% if part.type == 'image' %}" + model.image + "{% else %}"
        "{{ part.text }}{% endif %}{% endfor %}" + _END + "\n{% endfor %}"
        "{% if add_generation_prompt %}" + _TURN + "assistant\n{% endif %}"
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        additional_special_tokens=[_TURN, *model.tokens.values()],
        chat_template=template,
        # under the names by which the stock processors look for them
        **{name.removesuffix("_id"): token for name, token in model.tokens.items() if name.endswith("_token_id")},
    )
