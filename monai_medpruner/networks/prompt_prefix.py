# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The beginning that all prompts about a study share, run through the language model once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from monai_medpruner.networks.families import ModelFamily
from monai_medpruner.networks.prompt_files import Layers, PromptFiles
from monai_medpruner.networks.pruned_slices import PrunedSlices

__all__ = ["PromptPrefix"]

# layers whose keys and values of a prefix are known once it has run; exactly these, since others may keep more
_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)


@dataclass(eq=False)
class _Held:
    """What the language model made of a prefix.

    Args:
        entries: its inputs, per-token entries alone, ``(…, 1, P)``.
        tokens: weak references to the slices' tokens and DeepStack rows that it holds.
        layers: keys and values of each layer, ``(1, heads, P or the window, d)``; taken out while a question is asked.
        digest: name of the file that is still to be written; None for no file.
    """

    entries: dict[str, torch.Tensor]
    tokens: list[weakref.ref[torch.Tensor]]
    layers: Layers
    digest: str | None

    @property
    def length(self) -> int:
        return self.entries["input_ids"].shape[1]

    def begins(self, entries: Mapping[str, torch.Tensor], tokens: list[torch.Tensor]) -> bool:
        """Whether a prompt begins with exactly this: the same inputs, made of the same tensors."""
        if len(tokens) != len(self.tokens) or entries.keys() != self.entries.keys():
            return False
        if any(own() is not one for own, one in zip(self.tokens, tokens, strict=True)):
            return False
        # of another length where the text before the last slice differs
        return all(torch.equal(own, entries[name]) for name, own in self.entries.items())


class PromptPrefix:
    """Keys and values of the prompt's beginning, from its first token to its last visual token, for one study.

    Every question runs in two parts, the beginning and the rest, whether the beginning is found here or not. Therefore
    an answer does not depend on the questions before it. Against a prompt in one part, results may differ by rounding.

    What is held belongs to one study, is replaced by that of the next, and is dropped with the study's tokens. A
    beginning is the same where all inputs of the language model are: ids, positions, token types and the very tensors
    of the slices' tokens. Threads may share the object: while one asks, another finds nothing and runs its own.

    Args:
        files: where beginnings of earlier runs are found, and new ones are kept after the answer; of models that lie
            on one device.
    """

    def __init__(self, files: PromptFiles | None = None) -> None:
        self.files = files
        self._held: _Held | None = None
        self._lock = threading.Lock()

    @staticmethod
    def possible(model: Any) -> bool:
        """Whether a stock model's beginning can be run once for several prompts.

        Its cache must consist of full and sliding layers, and generation must make no other kind of cache.
        """
        generation = model.generation_config
        # transformers replaces "hybrid", which old checkpoints name, by its default
        usual = generation.cache_implementation in (None, "hybrid") and generation.use_cache is not False
        return usual and all(type(layer) in _LAYERS for layer in _new_cache(model).layers)

    @property
    def held_bytes(self) -> int:
        """Bytes of the keys and values that are held."""
        held = self._held
        return 0 if held is None else sum(one.untyped_storage().nbytes() for pair in held.layers for one in pair)

    @contextmanager
    def shared(
        self, family: ModelFamily, pruned: dict[str, Any], slices: PrunedSlices
    ) -> Iterator[tuple[dict[str, Any], int]]:
        """Give the arguments of the model's ``generate`` with the beginning already run.

        Args:
            family: of the model.
            pruned: arguments for the whole prompt; prompts of a batch of several are left as they are.
            slices: whose tokens they hold.

        Yields:
            The arguments, with a cache in place of the visual tokens, and the number of tokens that were found here.
        """
        model, ids = family.model, pruned["input_ids"]
        visual = (ids[0] == family.image_token_id).nonzero()
        length = int(visual[-1]) + 1 if len(visual) else 0
        if len(ids) > 1 or not 0 < length < ids.shape[1] or not self.possible(model):
            yield pruned, 0
            return
        names = ("input_ids", "attention_mask", "position_ids", *family.token_inputs)
        entries = {name: pruned[name][..., :length] for name in names if name in pruned}
        tokens = [*slices.tokens, *(rows for layer in slices.deepstack_features for rows in layer)]
        with self._lock:
            held, self._held = self._held, None
        found = held is not None and held.begins(entries, tokens)
        if held is None or not found:
            held = None  # its memory is free before the next beginning is run
            held, found = self._read_or_run(model, entries, tokens, pruned["mm_encoder_outputs"])
        cache = _filled_cache(model, held)
        yield {**_without_images(pruned), "past_key_values": cache}, held.length if found else 0
        # not after an exception, which leaves the cache in between
        _take_back(held, cache)
        if self.files is not None and held.digest is not None:
            self.files.write(held.digest, held.layers)
            held.digest = None
        if all(one() is not None for one in held.tokens):
            self._held = held

    def _read_or_run(
        self, model: Any, entries: dict[str, torch.Tensor], tokens: list[torch.Tensor], images: Any
    ) -> tuple[_Held, bool]:
        """Read the beginning from a file, or run it through the language model; and whether it was read."""
        digest, layers = None, None
        if self.files is not None and len({one.device for one in model.parameters()}) == 1:
            digest = self.files.digest(entries, tokens)
            layers = self.files.read(digest, entries["input_ids"].device)
        if layers is not None:
            return self._hold(entries, tokens, layers, None), True
        cache = _new_cache(model)
        # without the head, where it is a part of its own: the scores after the beginning are not needed
        inner = getattr(model, "model", model)
        inner(**entries, mm_encoder_outputs=images, past_key_values=cache, use_cache=True)
        return self._hold(entries, tokens, [(layer.keys, layer.values) for layer in cache.layers], digest), False

    def _hold(
        self, entries: dict[str, torch.Tensor], tokens: list[torch.Tensor], layers: Layers, digest: str | None
    ) -> _Held:
        own = weakref.ref(self)

        def drop(gone: weakref.ref[torch.Tensor]) -> None:
            if (prefix := own()) is not None and (held := prefix._held) is not None and held.tokens[0] is gone:
                prefix._held = None

        weak = [weakref.ref(tokens[0], drop), *map(weakref.ref, tokens[1:])]
        # copies: these are columns of the whole prompt
        copied = {name: one.clone() for name, one in entries.items()}
        return _Held(copied, weak, layers, digest)


def _new_cache(model: Any) -> Any:
    # typed Any: the layers' types have no common attributes
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def _filled_cache(model: Any, held: _Held) -> Any:
    """A cache that holds the beginning; layers make new tensors as they grow, and change none of these."""
    cache = _new_cache(model)
    for number, (layer, (keys, values)) in enumerate(zip(cache.layers, held.layers, strict=True)):
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.cumulative_length = held.length
        else:
            # the grown layer holds it too, so that its memory is not needed twice
            held.layers[number] = (keys.new_empty(0), values.new_empty(0))
    return cache


def _take_back(held: _Held, cache: Any) -> None:
    """Put the beginning of the grown full layers back; sliding ones forgot it, and kept theirs here."""
    for number, layer in enumerate(cache.layers):
        if not isinstance(layer, DynamicSlidingWindowLayer):
            held.layers[number] = (layer.keys[..., : held.length, :], layer.values[..., : held.length, :])


def _without_images(pruned: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in pruned.items() if name != "mm_encoder_outputs"}
