# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Pruners on phantoms with findings, at equal shares of the tokens: right answers, and findings that keep a token.

Part of ``findings.py``. Every method goes through the package's own encoder, with a token budget of the share; slices
are left out only where a method says so, or where its least number of tokens per slice does not fit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from findings_training import SIDE
from monai.data import MetaTensor

from monai_medpruner.data.phantom import (
    FINDINGS_QUESTIONS,
    FindingsPhantom,
    FindingsSettings,
    findings_answers,
    generate_findings,
    phantom_seed,
)
from monai_medpruner.networks import Checkpoint, EncodedStudy, TransformersEncoder
from monai_medpruner.networks.pruned_slices import PrunedSlices
from monai_medpruner.pruners import (
    AveragePoolingPruner,
    CDPrunerPruner,
    DivPrunePruner,
    HiPrunePruner,
    LocalContrastPruner,
    MedPrunerReleasedPruner,
    NucleusPruner,
    RandomTokensPruner,
    RareTokensPruner,
    TokenBudget,
    TokenPruner,
    VisionZipPruner,
)
from monai_medpruner.training import AnswerNetwork, findings_image, findings_volume, questions_right
from monai_medpruner.transforms import InterSliceAnchorFilter

SHARES = (0.02, 0.05, 0.1, 0.2)
#: diameters in mm at which findings are divided into groups
SIZES_MM = (8.0, 10.0, 14.0)
LARGE_MM = 10.0
_BY_METHOD = ("tokens", "slices", "kept", "right")  # parts of a line that have an entry for each method
_GAP_MM = 10.0  # the default under a budget, see configs/settings.json


@dataclass(frozen=True)
class Method:
    """A way to choose tokens.

    Args:
        pruner: makes the pruner for a share of the tokens.
        slices: "all"; "budget", as many as the budget allows by the bundles' default; "filter", the anchor filter's;
            "guard", those of the anchor filter with its guard for small lesions.
        body: leave out the patches beside the body.
    """

    pruner: Callable[[float], TokenPruner]
    slices: str = "all"
    body: bool = False


def _rounded_up(share: float) -> float:
    """A share of a slice's tokens that is at least the budget's, so that pruners of fixed shares can use it up."""
    return float(min(np.ceil(SIDE**2 * share) / SIDE**2, 1))


def _attention(_: float) -> NucleusPruner:
    return NucleusPruner(tau=1.0, contextual_ratio=0.0)


def _rare(_: float) -> RareTokensPruner:
    return RareTokensPruner(keep_ratio=1.0)


def _contrast(_: float) -> LocalContrastPruner:
    return LocalContrastPruner(keep_ratio=1.0)


METHODS: dict[str, Method] = {
    "received attention": Method(_attention),
    "received attention, merging": Method(lambda _: NucleusPruner(tau=1.0)),
    "received attention, clipped": Method(lambda _: NucleusPruner(tau=1.0, contextual_ratio=0.0, max_importance=3.0)),
    "medpruner_released": Method(lambda _: MedPrunerReleasedPruner(tau=1.0, contextual_ratio=0.0)),
    "nucleus by slice": Method(lambda _: NucleusPruner(tau=0.5, contextual_ratio=0.0)),
    "nucleus by volume": Method(lambda _: NucleusPruner(tau=0.5, contextual_ratio=0.0, scope="volume")),
    "received attention, slices of the budget": Method(_attention, "budget"),
    "received attention, anchor filter": Method(_attention, "filter"),
    "received attention, anchor filter with guard": Method(_attention, "guard"),
    "received attention, body only": Method(_attention, body=True),
    "random": Method(lambda _: RandomTokensPruner(keep_ratio=1.0, contextual_ratio=0.0)),
    "random, body only": Method(lambda _: RandomTokensPruner(keep_ratio=1.0, contextual_ratio=0.0), body=True),
    "rare tokens": Method(_rare),
    "rare tokens, slices of the budget": Method(_rare, "budget"),
    "rare tokens, body only": Method(_rare, body=True),
    "local contrast": Method(_contrast),
    "local contrast, slices of the budget": Method(_contrast, "budget"),
    "average pooling": Method(lambda _: AveragePoolingPruner()),
    "visionzip": Method(lambda share: VisionZipPruner(keep_ratio=_rounded_up(share))),
    "hiprune": Method(lambda share: HiPrunePruner(keep_ratio=_rounded_up(share))),
    "divprune": Method(lambda share: DivPrunePruner(keep_ratio=_rounded_up(share))),
    "cdpruner": Method(lambda share: CDPrunerPruner(keep_ratio=_rounded_up(share))),
}


def compare(
    network: Checkpoint,
    answering: AnswerNetwork,
    seed: int,
    count: int,
    file: Path,
    methods: Sequence[str],
    shares: Sequence[float],
) -> list[dict[str, Any]]:
    """Return one line per volume and share, with what each method keeps and answers.

    What the file knows is not asked again, and is returned too, also of methods and shares that are not asked about
    now, where it knows all volumes.
    """
    known: dict[tuple[int, float], dict[str, Any]] = {}
    for text in file.read_text().splitlines() if file.is_file() else ():
        _add(known, json.loads(text))
    numbers = [phantom_seed(seed, index) for index in range(count)]
    for share in shares:
        for number in numbers:
            missing = [name for name in methods if name not in known.get((number, share), {}).get("right", {})]
            if not missing:
                continue
            line = compare_volume(network, answering, generate_findings(number, FindingsSettings()), share, missing)
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")
            _add(known, line)
    lines = []
    for share in sorted({share for _, share in known}):
        own = [known[number, share] for number in numbers if (number, share) in known]
        if len(own) == count:
            complete = [name for name in METHODS if all(name in line["right"] for line in own)]
            lines += [_only(line, complete) for line in own]
    return lines


def _only(line: Mapping[str, Any], methods: Sequence[str]) -> dict[str, Any]:
    """Return a line with some of its methods."""
    return {
        name: {method: value[method] for method in methods} if name in _BY_METHOD else value
        for name, value in line.items()
    }


def _add(known: dict[tuple[int, float], dict[str, Any]], line: dict[str, Any]) -> None:
    """Add what a line says of further methods to what is known of the same volume and share."""
    own = known.setdefault((line["seed"], line["share"]), line)
    for name in _BY_METHOD:
        own[name] |= line[name]


def compare_volume(
    network: Checkpoint, answering: AnswerNetwork, phantom: FindingsPhantom, share: float, methods: Sequence[str]
) -> dict[str, Any]:
    """Return what each method keeps of a volume, which findings keep a token, and which questions are answered."""
    answers = findings_answers(phantom)
    line: dict[str, Any] = {"seed": phantom.seed, "share": share, "sizes": question_sizes(phantom)}
    line["diameters"] = [finding.diameter_mm for finding in phantom.findings]
    line |= {"tokens": {}, "slices": {}, "kept": {}, "right": {}}
    groups: dict[tuple[str, bool], list[str]] = {}
    for name in methods:
        groups.setdefault((METHODS[name].slices, METHODS[name].body), []).append(name)
    volume = findings_volume(phantom, SIDE)
    for (slices, body), names in groups.items():
        image = chosen_slices(findings_image(phantom, body), slices)
        budget = TokenBudget(retention=share, share_slices=slices == "budget", max_gap_mm=_GAP_MM)
        encoder = TransformersEncoder(network, budget=budget)
        studies = encoder.encode_each(image, [METHODS[name].pruner(share) for name in names])
        for name, study in zip(names, studies, strict=True):
            right, keep = answer_study(answering, encoder, study, answers, len(volume.slices))
            line["right"][name], line["tokens"][name] = right, [int(keep.sum()), keep.size]
            line["slices"][name] = [int(keep.any(1).sum()), len(keep)]
            line["kept"][name] = (volume.areas.transpose(1, 0, 2)[:, keep] > 0).any(1).tolist()
    return line


def chosen_slices(image: MetaTensor, slices: str) -> MetaTensor:
    """Return the slices that the anchor filter keeps, if a method asks for it."""
    if slices not in ("filter", "guard"):
        return image
    return InterSliceAnchorFilter(guard_mm=10.0 if slices == "guard" else None)(image)


def answer_study(
    answering: AnswerNetwork, encoder: TransformersEncoder, study: EncodedStudy, answers: Mapping[str, str], depth: int
) -> tuple[Mapping[str, bool], np.ndarray]:
    """Return which questions are answered exactly, and the mask ``(D, N)`` of the tokens that are kept.

    Where a pruner needs the question, the mask is that of the last question.
    """
    if study.pending is None:
        pruned, keep = kept_of(study, depth)
        return questions_right(answering, pruned, answers), keep
    right: dict[str, bool] = {}
    for kind, answer in answers.items():
        pruned, keep = kept_of(encoder.for_question(study, FINDINGS_QUESTIONS[kind][0]), depth)
        right |= questions_right(answering, pruned, {kind: answer})
    return right, keep


def kept_of(study: EncodedStudy, depth: int) -> tuple[PrunedSlices, np.ndarray]:
    """Return a study's tokens for the language model, and the mask ``(D, N)`` of their places in the volume."""
    records = list(study.record.slices)
    layers = [list(layer) for layer in study.deepstack_features]
    keep = np.zeros((depth, len(records[0].keep)), dtype=bool)
    keep[list(study.record.slice_indices)] = torch.stack([record.keep for record in records]).numpy()
    return PrunedSlices(list(study.tokens), layers, records), keep


def question_sizes(phantom: FindingsPhantom) -> dict[str, float]:
    """Return the diameter in mm of the finding that a question is about, for the kinds that are about one."""
    sizes = {}
    for kind in FINDINGS_QUESTIONS:
        finding = phantom.largest(kind.split(", ")[1]) if ", " in kind else None
        if finding is not None:
            sizes[kind] = finding.diameter_mm
    return sizes


def size_group(diameter_mm: float) -> str:
    """Return the name of the group that a diameter belongs to."""
    group = int(np.searchsorted(SIZES_MM, diameter_mm, "right"))
    bounds = ("4", *(f"{size:g}" for size in SIZES_MM), "20")
    return f"{bounds[group]} to {bounds[group + 1]} mm"


def comparison_scores(
    lines: Sequence[Mapping[str, Any]],
    unpruned: Mapping[int, Mapping[str, bool]],
    answers: Mapping[int, Mapping[str, str]],
    touches: Mapping[int, Sequence[bool]],
    interval: Callable[[Sequence[Sequence[float]]], dict[str, float]],
) -> dict[str, Any]:
    """Return, by share and method, accuracies with intervals, by kind and size, the findings kept, and differences.

    Args:
        lines: result of :func:`compare`.
        unpruned: which questions are answered with all tokens, by the seed of the volume.
        answers: correct answers by kind of question, by the seed of the volume.
        touches: which findings touch the skull, by the seed of the volume.
        interval: mean and interval of values grouped by volume.
    """
    result: dict[str, Any] = {}
    for share in dict.fromkeys(line["share"] for line in lines):
        own = [line for line in lines if line["share"] == share]
        scored = {}
        for name in own[0]["right"]:
            kept, tokens = np.sum([line["tokens"][name] for line in own], axis=0).tolist()
            scored[name] = {
                "tokens_kept_percent": round(100 * kept / tokens, 2),
                "slices_kept_percent": round(
                    100 * float(np.mean([np.divide(*line["slices"][name]) for line in own])), 1
                ),
                "all": interval([[float(one) for one in line["right"][name].values()] for line in own]),
                "by_kind": _means((kind, one) for line in own for kind, one in line["right"][name].items()),
                "by_size": _means(
                    (size_group(line["sizes"][kind]), one)
                    for line in own
                    for kind, one in line["right"][name].items()
                    if kind in line["sizes"]
                ),
                "presence": presence([(line["right"][name], answers[line["seed"]]) for line in own]),
                "findings_that_keep_a_token_percent": _means(
                    (size_group(size), one)
                    for line in own
                    for size, one in zip(line["diameters"], line["kept"][name], strict=True)
                ),
                "large_findings_that_keep_a_token_percent": _means(
                    ("at the skull" if touching else "away from the skull", one)
                    for line in own
                    for size, touching, one in zip(
                        line["diameters"], touches[line["seed"]], line["kept"][name], strict=True
                    )
                    if size >= LARGE_MM
                ),
            }
            pairs = [(line["right"][name], unpruned[line["seed"]]) for line in own]
            scored[name]["minus unpruned"] = interval([_differences(*pair) for pair in pairs])
            for other in ("received attention", "random", "average pooling"):
                if other in own[0]["right"] and other != name:
                    pairs = [(line["right"][name], line["right"][other]) for line in own]
                    scored[name][f"minus {other}"] = interval([_differences(*pair) for pair in pairs])
        result[f"{share:g}"] = scored
    return result


def presence(pairs: Iterable[tuple[Mapping[str, bool], Mapping[str, str]]]) -> dict[str, float]:
    """Return sensitivity and specificity in percent over the questions whether a volume shows a kind of finding.

    Args:
        pairs: which questions are answered correctly, and the correct answers, by kind, of each volume.
    """
    names = {"Yes": "sensitivity", "No": "specificity"}
    return _means(
        (names[answers[kind]], one)
        for right, answers in pairs
        for kind, one in right.items()
        if kind.startswith("presence")
    )


def _differences(first: Mapping[str, bool], second: Mapping[str, bool]) -> list[float]:
    """Return, question by question, 1 where only the first is right and -1 where only the second is."""
    return [float(first[kind]) - float(second[kind]) for kind in first]


def _means(pairs: Any) -> dict[str, float]:
    """Return the mean of the values of each name in percent."""
    values: dict[str, list[float]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(float(value))
    return {name: round(100 * float(np.mean(values[name])), 1) for name in sorted(values)}
