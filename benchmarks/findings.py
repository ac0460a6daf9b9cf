# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Measure whether the choice of tokens matters on phantoms with small findings, and compare pruners on them.

Trains a small model of each family (``findings_training.py``), then asks it all questions about phantoms of a seed that
no training saw: with all tokens, with those of an oracle, with random ones, and with those of each pruner
(``findings_comparison.py``). The oracle keeps the tokens of the findings and those beside them; random tokens are a
share of the volume's. Shuffled are all tokens of another phantom. Intervals are 95 % bootstrap intervals over volumes.
An interrupted run resumes: training at its last epoch, questions at the last volume; the results hold
all methods and shares that the work folder knows. Everything here is synthetic.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from findings_comparison import METHODS, SHARES, compare, comparison_scores, presence, size_group
from findings_training import SHARE, SIDE, Schedule, curves, quiet, train

from monai_medpruner.data.phantom import (
    FINDINGS_QUESTIONS,
    HEAD_LABELS,
    FindingsSettings,
    findings_answers,
    findings_questions,
    generate_findings,
    majority_rates,
    phantom_seed,
    question_kind,
)
from monai_medpruner.networks import Checkpoint
from monai_medpruner.training import (
    AnswerNetwork,
    FindingsVolume,
    encode_findings,
    exact_answers,
    findings_pool,
    findings_volume,
    oracle_tokens,
    random_tokens,
)

FAMILIES = ("qwen3_vl", "gemma3")
#: families whose encoder cannot leave out patches
WHOLE_SLICES = ("gemma3",)
SELECTIONS = ("unpruned", "oracle", "random", "blind")
#: those, and all tokens of another volume
ASKED = (*SELECTIONS, "shuffled")
RESAMPLES = 2000


def selected(selection: str, areas: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the mask ``(D, N)`` of the tokens that a selection keeps."""
    shown = (areas > 0).any(1)
    if selection == "unpruned":
        return np.ones_like(shown)
    if selection == "oracle":
        return oracle_tokens(generator, areas, SHARE)
    if selection == "random":
        return random_tokens(generator, shown, SHARE)
    keep = np.zeros_like(shown)
    keep[0, 0] = True  # a corner of the lowest slice, which shows air
    return keep


def ask(
    network: Checkpoint, answering: AnswerNetwork, seed: int, volumes: Sequence[FindingsVolume], file: Path
) -> list[dict[str, Any]]:
    """Return one line per volume: which questions are answered correctly with which tokens; what is known is read."""
    known: dict[int, dict[str, Any]] = {}
    for text in file.read_text().splitlines() if file.is_file() else ():
        _add(known, json.loads(text))
    numbers = [phantom_seed(seed, index) for index in range(len(volumes))]
    for index, number in enumerate(numbers):
        missing = [name for name in ASKED if name not in known.get(number, {}).get("right", {})]
        if missing:
            line = ask_volume(network, answering, number, volumes[index], volumes[index - 1], missing)
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")
            _add(known, line)
    return [known[number] for number in numbers]


def _add(known: dict[int, dict[str, Any]], line: dict[str, Any]) -> None:
    """Add what a line says of further selections to what is known of the same volume."""
    own = known.setdefault(line["seed"], line)
    for name in ("tokens", "right"):
        own[name] |= line[name]


def ask_volume(
    network: Checkpoint,
    answering: AnswerNetwork,
    number: int,
    volume: FindingsVolume,
    other: FindingsVolume,
    selections: Sequence[str],
) -> dict[str, Any]:
    """Return which questions about a volume are answered correctly; "shuffled" shows all tokens of the other one."""
    line: dict[str, Any] = {"seed": number, "tokens": {}, "right": {}}
    own, others = encode_findings(network, [volume, replace(other, answers=volume.answers)])
    for selection in selections:
        encoded, kept = (others, "unpruned") if selection == "shuffled" else (own, selection)
        keep = selected(kept, encoded.volume.areas, np.random.default_rng([number, 10]))
        line["tokens"][selection] = [int(keep.sum()), keep.size]
        line["right"][selection] = exact_answers(answering, encoded, keep)
    return line


def interval(by_volume: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the mean of all values in percent, and its 95 % interval over bootstrap draws of volumes."""
    sums, counts = np.array([sum(one) for one in by_volume]), np.array([len(one) for one in by_volume])
    draws = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = 100 * sums[draws].sum(1) / np.maximum(counts[draws].sum(1), 1)
    low, high = np.percentile(means, [2.5, 97.5]).tolist()
    return {"mean": round(float(100 * sums.sum() / counts.sum()), 2), "low": round(low, 2), "high": round(high, 2)}


def scores(lines: Sequence[dict[str, Any]], answers: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return accuracies in percent by selection and kind of question, and the differences between selections.

    Args:
        lines: of :func:`ask` or :func:`ideal_reading`.
        answers: the correct answers of each line's volume, by kind of question.
    """
    result: dict[str, Any] = {"questions": sum(len(line["right"]["unpruned"]) for line in lines), "accuracy": {}}
    for selection in lines[0]["right"]:
        kept, tokens = np.sum([line["tokens"][selection] for line in lines], axis=0).tolist()
        right = [line["right"][selection] for line in lines]
        kinds: dict[str, list[bool]] = defaultdict(list)
        for one in right:
            for kind, value in one.items():
                kinds[kind].append(value)
        result["accuracy"][selection] = {
            "tokens_kept_percent": round(100 * kept / tokens, 2),
            "all": interval([list(one.values()) for one in right]),
            "presence": presence(zip(right, answers, strict=True)),
            **{kind: round(100 * float(np.mean(kinds[kind])), 1) for kind in FINDINGS_QUESTIONS if kind in kinds},
        }
    for first, second in (("oracle", "unpruned"), ("oracle", "random"), ("unpruned", "random"), ("unpruned", "blind")):
        differences = [
            [float(line["right"][first][kind]) - float(line["right"][second][kind]) for kind in line["right"][first]]
            for line in lines
        ]
        result[f"{first}_minus_{second}"] = interval(differences)
    return result


def ideal_reading(seed: int, count: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Read the tested phantoms with the ground truth of the kept tokens, and guess where they do not tell.

    The ideal reader knows a finding and its true size if any kept token shows a part of it, and nothing of the others.
    It takes the findings that it sees for all there are; where it sees none that a question is about, it gives the most
    frequent answer. It says what the tokens hold if each tells of its own square alone, whatever a model makes of them.

    Returns:
        how often the most frequent answers are right, in percent by kind; and lines as those of :func:`ask`, with
        which findings touch the skull.
    """
    phantoms = [generate_findings(phantom_seed(seed, index), FindingsSettings()) for index in range(count)]
    rows = [row for phantom in phantoms for row in findings_questions(phantom, "")]
    answers = defaultdict(list)
    for row in rows:
        answers[question_kind(row["Question"])].append(row["Answer"])
    guesses = {kind: max(sorted(set(given)), key=given.count) for kind, given in answers.items()}
    lines = []
    for phantom in phantoms:
        volume = findings_volume(phantom, SIDE)
        line: dict[str, Any] = {"seed": phantom.seed, "tokens": {}, "right": {}}
        line["touches"] = [finding.touches_skull for finding in phantom.findings]
        for selection in SELECTIONS:
            keep = selected(selection, volume.areas, np.random.default_rng([phantom.seed, 10]))
            seen = (volume.areas.transpose(1, 0, 2)[:, keep] > 0).any(1)
            visible = [finding for finding, one in zip(phantom.findings, seen, strict=True) if one]
            read = findings_answers(replace(phantom, findings=tuple(visible))) if visible else {}
            line["tokens"][selection] = [int(keep.sum()), keep.size]
            line["right"][selection] = {
                kind: read.get(kind, guesses[kind]) == answer for kind, answer in volume.answers.items()
            }
        lines.append(line)
    return {kind: round(100 * rate, 1) for kind, rate in majority_rates(rows).items()}, lines


def contrast_to_noise(seed: int, count: int) -> dict[str, dict[str, float]]:
    """Return how well findings stand out, by density and diameter: what an ideal detector has to work with.

    Findings at the skull are left out, whose pixels the blur of the bone brightens. Of each other one, the slice with
    most of it is taken. Its contrast is its mean minus the median of the brain 2 to 8 mm around it. The ratio is
    contrast times the square root of the number of pixels over the noise: that of a matched filter, if the noise of
    pixels were independent.
    """
    seen: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for index in range(count):
        phantom = generate_findings(phantom_seed(seed, index), FindingsSettings())
        brain = (phantom.organs == HEAD_LABELS["brain"]) & (phantom.lesion_mask == 0)
        for finding in (one for one in phantom.findings if not one.touches_skull):
            whole = phantom.lesion_mask == finding.label
            best = int(whole.sum((0, 1)).argmax())
            mask, values = whole[:, :, best], phantom.volume[:, :, best]
            away = np.indices(mask.shape) - np.argwhere(mask).mean(0)[:, None, None]
            distance = np.hypot(*away) * phantom.spacing[0] - finding.diameter_mm / 2
            ring = brain[:, :, best] & (distance > 2) & (distance < 8)
            contrast = abs(float(values[mask].mean() - np.median(values[ring])))
            group = f"{finding.density}, {size_group(finding.diameter_mm)}"
            seen[group].append((contrast, contrast / phantom.noise_hu * float(mask.sum()) ** 0.5))
    return {
        group: {
            "findings": len(seen[group]),
            "contrast_hu": round(float(np.median([contrast for contrast, _ in seen[group]])), 1),
            "ratio": round(float(np.median([ratio for _, ratio in seen[group]])), 1),
            "ratio_tenth_percentile": round(float(np.percentile([ratio for _, ratio in seen[group]], 10)), 1),
        }
        for group in sorted(seen)
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="*", default=FAMILIES, choices=FAMILIES, help="default: both")
    parser.add_argument("--count", type=int, default=280, help="tested phantoms, of about 8 questions (default: 280)")
    parser.add_argument("--seed", type=int, default=44839, help="of the tested phantoms; not 3000, not 3002")
    parser.add_argument(
        "--methods", nargs="*", default=list(METHODS), choices=METHODS, help="to ask about now; default: all"
    )
    parser.add_argument("--shares", nargs="*", type=float, default=SHARES, help="of the tokens (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("out/findings"), help="folder of models and answers")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/findings.json"), help="of the results")
    for field in fields(Schedule):
        parser.add_argument(
            f"--{field.name}", type=type(field.default), default=field.default, help="default: %(default)s"
        )
    options = parser.parse_args(arguments)
    quiet()
    schedule = Schedule(**{field.name: getattr(options, field.name) for field in fields(Schedule)})
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, CPU, one thread",
        "phantoms": {"preset": "findings", "seed": options.seed, "count": options.count},
        "share_of_tokens": SHARE,
        "schedule": asdict(schedule),
        "families": {},
    }
    result["majority_percent"], lines = ideal_reading(options.seed, options.count)
    result["contrast_to_noise"] = contrast_to_noise(options.seed, min(options.count, 120))
    volumes = findings_pool(options.work / "phantoms", options.seed, options.count, FindingsSettings(), SIDE)
    volumes = volumes[: options.count]
    answers = [volume.answers for volume in volumes]
    result["ideal_reader"] = scores(lines, answers)
    touches = {line["seed"]: line["touches"] for line in lines}
    for family in options.families:
        network, answering = train(family, options.work, schedule)
        asked = options.work / family / f"asked_{options.seed}.jsonl"
        lines = ask(network, answering, options.seed, volumes, asked)
        file = options.work / family / f"compared_{options.seed}.jsonl"
        methods = [name for name in options.methods if family not in WHOLE_SLICES or not METHODS[name].body]
        compared = compare(network, answering, options.seed, options.count, file, methods, options.shares)
        unpruned = {line["seed"]: line["right"]["unpruned"] for line in lines}
        by_seed = {line["seed"]: one for line, one in zip(lines, answers, strict=True)}
        result["families"][family] = {
            **scores(lines, answers),
            "comparison": comparison_scores(compared, unpruned, by_seed, touches, interval),
            "curves": curves(options.work, family),
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
