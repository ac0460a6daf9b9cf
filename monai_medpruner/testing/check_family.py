# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What must hold for every model family: the pruned model gives the numbers of the stock model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from monai_medpruner.networks.families import FAMILIES, ModelFamily, family_of, register_family, unregister_family
from monai_medpruner.networks.pruned_vlm import PrunedVLM
from monai_medpruner.pruners import NucleusPruner, Signal, SliceTokens, TokenPruner
from monai_medpruner.testing.eager_attention import eager_attention_weights
from monai_medpruner.testing.masking_oracle import Mask, Positions, masked_greedy, masked_logits
from monai_medpruner.testing.random_inputs import prompt_inputs

__all__ = ["Patches", "check_family", "family_patches"]

#: model and rows and columns of a slice's tokens to the rows of the attention matrix that form each token, ``(N, n)``
Patches = Callable[[Any, tuple[int, int]], torch.Tensor]

_TOLERANCE = {"atol": 5e-5, "rtol": 1e-3}
_NUCLEUS = NucleusPruner(tau=0.5, temperature=0.5, contextual_ratio=0)


@dataclass(frozen=True)
class _HalfOfTheTokens(TokenPruner):
    """Keeps each token with probability one half, by its place in the slice, and at least one."""

    @property
    def signals(self) -> frozenset[Signal]:
        return frozenset()

    def score(self, slices: SliceTokens) -> torch.Tensor:
        generator = torch.Generator().manual_seed(11)
        drawn = torch.rand(slices.valid.shape[1], generator=generator)
        return drawn.expand(slices.valid.shape).to(slices.valid.device)

    def select(self, score: torch.Tensor, slices: SliceTokens) -> torch.Tensor:
        return (score < 0.5) | (torch.arange(score.shape[1], device=score.device) == 0)


def check_family(
    family: type[ModelFamily],
    model: Any,
    image_processor: Any,
    tokenizer: Any,
    *,
    positions: Positions | None = None,
    mask: Mask | None = None,
    patches: Patches | None = None,
    sizes: Sequence[tuple[int, int]] = ((64, 64), (64, 96), (128, 64), (64, 96)),
    new_tokens: int = 8,
) -> None:
    """Compare a pruned model with the stock model under a mask that hides the dropped tokens.

    - Logits and greedy tokens of the pruned prompt are those of the stock model on the full prompt, masked.
    - With a nucleus of τ = 1 they are those of the stock model as it is.
    - A batch of prompts gives what each gives alone, and the encoder's batch size changes nothing.
    - The importance of the tokens is the attention that an eager scoring layer computes.
    - Tokens that are projected from the encoder's own are the tokens.
    - The model is left as it was.

    Use a tiny model in float32 whose weights matter (:func:`~monai_medpruner.testing.randomize_weights`), and sizes
    that give grids which are not square.

    Args:
        family: to be checked; it need not be registered.
        model: a stock model of the family.
        image_processor: of the model.
        tokenizer: of the model.
        positions: how the model numbers the tokens; by default as the family says.
        mask: who sees whom, where it is not every earlier kept token.
        patches: which rows of the attention matrix form a token; by default as the family says, behind class tokens.
            Of these three, a function that does not use the family's code is the stronger check.
        sizes: height and width in pixels of at least three slices; all but the last form one volume.
        new_tokens: number of tokens that are generated.

    Raises:
        AssertionError: something does not hold; the message says what.
    """
    training = model.training
    model.eval()
    try:
        bound = family(model)
        with _registered(family), _plain_generation(model, bound.image_token_id):
            inputs = prompt_inputs(bound, image_processor, tokenizer, sizes[:-1], sizes[-1:])
            inputs = {name: value.to(model.device) for name, value in inputs.items()}
            with torch.no_grad():
                # some stock models put hooks of their own on their blocks at the first call
                model(**inputs)
            with _unchanged(model):
                check = _Check(bound, model, inputs, len(sizes), new_tokens, positions, mask)
                check.equals_masked_model()
                check.tau_one_equals_stock()
                check.batch_equals_one_by_one()
                check.vision_batch_size_changes_nothing()
                check.projection_gives_the_tokens()
                check.importance_is_eager_attention(patches or family_patches)
    finally:
        model.train(training)


def family_patches(model: Any, grid: tuple[int, int]) -> torch.Tensor:
    """The patches of each token as the model's family says, int64 ``(N, n)``, counted from the first patch."""
    family = family_of(model)
    places = torch.arange(grid[0] * grid[1] * family.patches_per_token)
    return family.group_patches(places[None], grid)[0]


class _Check:
    """The checks of one family on one batch of two prompts."""

    def __init__(
        self,
        family: ModelFamily,
        model: Any,
        inputs: dict[str, Any],
        slices: int,
        new_tokens: int,
        positions: Positions | None,
        mask: Mask | None,
    ) -> None:
        self.family = family
        self.model = model
        self.inputs = inputs
        self.slices = slices
        self.new_tokens = new_tokens
        self.oracle: dict[str, Any] = {"positions": positions, "mask": mask}

    def equals_masked_model(self) -> None:
        for pruner in (_NUCLEUS, _HalfOfTheTokens(contextual_ratio=0)):
            name = type(pruner).__name__.strip("_")
            logits, keep = self._pruned(pruner)
            visual = self.inputs["input_ids"] == self.family.image_token_id
            share = float(keep[visual].float().mean())
            _require(
                0.1 < share < 0.9,
                f"{name} keeps {share:.0%} of the visual tokens, which says little: give the model other weights",
            )
            _require(torch.equal(keep[~visual], self.inputs["attention_mask"][~visual].bool()), "all text must be kept")
            expected = masked_logits(self.model, self.inputs, keep, **self.oracle)[keep]
            with torch.no_grad():
                stock = self.model(**self.inputs).logits[keep]
            _require(
                not torch.allclose(stock, expected, atol=1e-3, rtol=0),
                "hiding the dropped tokens hardly changes the stock model: give it larger weights (randomize_weights)",
            )
            _close(logits, expected, f"logits of the prompt pruned by {name} and of the masked stock model")
            tokens = self._generate(PrunedVLM(self.model, pruner), self.inputs)
            suppressed = [self.family.image_token_id]
            greedy = masked_greedy(
                self.model, self.inputs, keep, self.new_tokens, **self.oracle, suppress_tokens=suppressed
            )
            _require(
                torch.equal(tokens, greedy), f"tokens generated under {name} must be those of the masked stock model"
            )

    def tau_one_equals_stock(self) -> None:
        pruner = NucleusPruner(tau=1)
        logits, keep = self._pruned(pruner)
        real = self.inputs["attention_mask"].bool()
        _require(torch.equal(keep, real), "with tau 1 every token must be kept")
        with torch.no_grad():
            _close(logits, self.model(**self.inputs).logits[real], "logits with tau 1 and of the stock model")
        tokens = self._generate(PrunedVLM(self.model, pruner), self.inputs)
        _require(
            torch.equal(tokens, self._generate(self.model, self.inputs)),
            "tokens generated with tau 1 must be those of the stock model",
        )

    def batch_equals_one_by_one(self) -> None:
        for merge_space in ("projected", "encoder"):
            vlm = PrunedVLM(self.model, NucleusPruner(tau=0.5, temperature=0.5, merge_space=merge_space))
            together = self._generate(vlm, self.inputs)
            last = self.slices - 1
            for row, (start, stop) in enumerate([(0, last), (last, self.slices)]):
                real = self.inputs["attention_mask"][row].bool()
                names = ("input_ids", "attention_mask", *self.family.token_inputs)
                alone = {name: self.inputs[name][row : row + 1, real] for name in names}
                tokens = self._generate(vlm, {**alone, **self.family.slice_inputs(self.inputs, start, stop)})
                _require(torch.equal(tokens[0], together[row]), f"prompt {row} of a batch must be answered as alone")

    def vision_batch_size_changes_nothing(self) -> None:
        for pruner in (NucleusPruner(tau=0.5, temperature=0.5), NucleusPruner(tau=0.5, scope="volume")):
            whole = PrunedVLM(self.model, pruner).encode(self.slices, **self.inputs)
            for size in (1, 2):
                parts = PrunedVLM(self.model, pruner).encode(size, **self.inputs)
                _require(
                    all(map(torch.equal, parts.keep, whole.keep)),
                    f"slices encoded {size} at a time must keep the tokens that they keep together",
                )
                for one, other in zip(
                    [parts.tokens, *parts.deepstack_features], [whole.tokens, *whole.deepstack_features], strict=True
                ):
                    _close(torch.cat(list(one)), torch.cat(list(other)), f"tokens of slices encoded {size} at a time")

    def projection_gives_the_tokens(self) -> None:
        with torch.no_grad():
            encoded = self.family.encode(self.family.slice_inputs(self.inputs, 0, self.slices))
            for index, (rows, columns) in enumerate(self.family.token_grids(self.inputs)):
                tokens = encoded.tokens[index]
                _require(len(tokens) == rows * columns, f"slice {index} must have {rows * columns} tokens")
                _close(self.family.project(encoded.encoder_tokens[index]), tokens, f"projection of slice {index}")

    def importance_is_eager_attention(self, patches: Patches) -> None:
        for index in range(self.slices):
            images = self.family.slice_inputs(self.inputs, index, index + 1)
            (record,) = PrunedVLM(self.model, _NUCLEUS).encode(**images).records
            encode = partial(self.family.encode, images)
            weights = eager_attention_weights(self.model, self.family.scoring_attention, encode)
            of_token = patches(self.model, record.grid)
            if patches is family_patches:
                # class tokens come before the patches
                of_token = of_token + weights[0].shape[-1] - of_token.numel()
            every = of_token.flatten().sort().values.to(weights[0].device)
            among = weights[0][0].double()[:, every][:, :, every]
            among = among / among.sum(-1, keepdim=True)
            received = among.new_zeros(weights[0].shape[-1])
            received[every] = among.mean(0).sum(0)
            expected = received[of_token.to(received.device)].mean(-1).cpu()
            assert record.importance is not None, "a pruner that asks for attention must record it"
            torch.testing.assert_close(
                record.importance.double(),
                expected,
                atol=1e-4,
                rtol=1e-4,
                msg=partial("importance of slice {} and attention of the eager layer: {}".format, index),
            )

    def _pruned(self, pruner: TokenPruner) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits of the kept tokens, prompt after prompt, and the mask of the kept tokens ``(B, L)``."""
        records: list[Any] = []
        with torch.no_grad():
            logits = PrunedVLM(self.model, pruner)(**self.inputs, on_record=records.append).logits
        keep = records[0].keep.to(logits.device)
        rows = [row[logits.shape[1] - count :] for row, count in zip(logits, keep.sum(1).tolist(), strict=True)]
        return torch.cat(rows), keep

    def _generate(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        output = model.generate(**inputs, max_new_tokens=self.new_tokens, do_sample=False)
        return output[:, -self.new_tokens :]


@contextmanager
def _registered(family: type[ModelFamily]) -> Iterator[None]:
    """Register a family while the block runs, unless it is registered."""
    if family in FAMILIES:
        yield
        return
    register_family(family)
    try:
        yield
    finally:
        unregister_family(family)


@contextmanager
def _plain_generation(model: Any, image_token_id: int) -> Iterator[None]:
    """Let no token end an answer and no rule change the scores; images without pixels are not generated."""
    before = model.generation_config
    model.generation_config = GenerationConfig(pad_token_id=before.pad_token_id, suppress_tokens=[image_token_id])
    try:
        yield
    finally:
        model.generation_config = before


@contextmanager
def _unchanged(model: Any) -> Iterator[None]:
    """Require that the block leaves a model's weights, hooks and configuration, and transformers, as they were."""
    before = _state(model)
    yield
    after = _state(model)
    for part, value in before.items():
        _require(after[part] == value, f"the model must be left as it was, but its {part} changed")


def _state(model: Any) -> dict[str, Any]:
    modules = dict(model.named_modules())
    return {
        "weights": {name: (id(one), one._version) for name, one in model.named_parameters()},
        "hooks": {name: (list(one._forward_hooks), list(one._forward_pre_hooks)) for name, one in modules.items()},
        "methods": {name: "forward" in vars(one) for name, one in modules.items()},
        "configuration": model.config.to_dict(),
        "attention": [one.config._attn_implementation for one in modules.values() if hasattr(one, "config")],
        "attention functions": sorted(ALL_ATTENTION_FUNCTIONS.keys()),
    }


def _close(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    def message(text: str) -> str:
        return f"{what} must be equal: {text}"

    torch.testing.assert_close(found, expected, atol=_TOLERANCE["atol"], rtol=_TOLERANCE["rtol"], msg=message)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
