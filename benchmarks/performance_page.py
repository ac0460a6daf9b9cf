# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of the performance, from its JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving_page import serving_section

from monai_medpruner.benchmark import BENCHMARK_STAGES, benchmark_table, machine_text, model_text
from monai_medpruner.benchmark.shapes import SHAPES, reduced

QWEN, GEMMA = "shape:qwen3-vl-8b", "shape:medgemma-1.5-4b"
_TITLES = {
    QWEN: "Qwen3-VL-8B shape",
    GEMMA: "MedGemma 1.5 (Gemma-3-4B) shape",
    "shape:hulu-med-7b": "Hulu-Med-7B shape",
}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        what: is measured.
        target: that must hold.
        found: in words; None where it was not measured.
        holds: whether the target holds; None where it was not measured.
        profile: where the time goes, for a target that is missed.
    """

    what: str
    target: str
    found: str | None = None
    holds: bool | None = None
    profile: str = ""


def must_hold(results: Mapping[str, Any]) -> list[Row]:
    """Return the rows of the table for the measurements of one device."""
    shapes = {one["model"]["name"]: one for one in results.get("shapes", ())}
    best = results.get("best_baseline")
    rows = [
        _ratio(shapes, GEMMA, "file to first token, `fast` against unpruned", 4, "unpruned", "fast"),
        _ratio(shapes, QWEN, "file to first token, `fast` with crop against unpruned", 8, "unpruned", "fast, crop"),
        _ratio(shapes, QWEN, "the same without crop", 6, "unpruned", "fast"),
        _ratio(shapes, GEMMA, "against `medpruner_released`", 3, "as released", "as released, ours"),
        _ratio(shapes, QWEN, "against `medpruner_released`", 2, "as released", "as released, ours"),
    ]
    for model in (GEMMA, QWEN):
        rows.append(_ratio(shapes, model, f"`fast` against the best baseline, {best}", 1.3, best, "fast"))
    second = {one["model"]: one for one in results.get("second", ())}
    for model in (GEMMA, QWEN):
        rows += _second(model, second.get(model))
    rows += [_memory(shapes.get(model), model) for model in (GEMMA, QWEN)]
    return [*rows, *_scaling(results.get("scaling"))]


def _seconds(measured: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """Seconds to the first token; on a GPU without loading."""
    return row["first_token_s"] - (row["seconds"]["load"] if measured["machine"]["gpu"] else 0.0)


def _row(measured: Mapping[str, Any] | None, name: str | None) -> Mapping[str, Any] | None:
    rows = () if measured is None else measured["rows"]
    return next((row for row in rows if row["name"] == name), None)


def _ratio(
    shapes: Mapping[str, Any], model: str, what: str, target: float, slower: str | None, faster: str | None
) -> Row:
    title, least = f"{_TITLES[model]}: {what}", f"≥ {target:g}×"
    measured = shapes.get(model)
    one, other = _row(measured, slower), _row(measured, faster)
    if measured is None or one is None or other is None:
        return Row(title, least)
    ratio = _seconds(measured, one) / _seconds(measured, other)
    cpu = "" if measured["machine"]["gpu"] else f"; CPU time {one['cpu_s'] / other['cpu_s']:.1f}×"
    if measured["model"]["depth"] != 1:
        cpu += f"; multiplied up to all layers {_whole(measured, one) / _whole(measured, other):.1f}×"
    found = f"{ratio:.1f}× ({_seconds(measured, one):.1f} s : {_seconds(measured, other):.1f} s{cpu})"
    return Row(title, least, found, ratio >= target, _profile(one, other))


def _profile(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    stages = sorted(BENCHMARK_STAGES, key=lambda stage: -other["seconds"][stage])
    parts = [f"{stage} {other['seconds'][stage] / other['first_token_s']:.0%}" for stage in stages[:4]]
    here, whole = (other["ratios"][name] / one["ratios"][name] for name in ("flops", "published_flops"))
    floor = f"Operations alone would give {here:.1f}× here, and {whole:.1f}× at full depth"
    return f"Of its time: {', '.join(parts)}. {floor}."


def _whole(measured: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """Seconds to the first token with the times of encoder and language model multiplied up to all layers."""
    model = measured["model"]
    shape = SHAPES[model["name"].removeprefix("shape:")]
    seconds = _seconds(measured, row)
    for part, full, stage in zip(
        reduced(shape, model["depth"]), (shape.vision, shape.text), ("encode", "prefill"), strict=True
    ):
        (layers,) = (name for name in ("depth", "num_hidden_layers") if name in full)
        seconds += row["seconds"][stage] * (full[layers] / part[layers] - 1)
    return seconds


def _second(model: str, found: Mapping[str, Any] | None) -> list[Row]:
    title = f"{_TITLES[model]}: second question, before decoding"
    if found is None:
        return [Row(title, "≤ 10 % of the first")]
    seconds = found["seconds"]
    rows = []
    for name, said in (("second", title), ("next day", f"{_TITLES[model]}: next day's question")):
        if name not in seconds:
            rows.append(Row(said, "≤ 10 % of the first"))
            continue
        share = seconds[name] / seconds["first"]
        text = f"{share:.1%} ({seconds[name]:.2f} s : {seconds['first']:.1f} s)"
        reused = f"{found['reused_tokens']} of {found['prompt_tokens']} tokens of the prompt were reused."
        rows.append(Row(said, "≤ 10 % of the first", text, share <= 0.1, reused))
    return rows


def _memory(measured: Mapping[str, Any] | None, model: str) -> Row:
    title = f"{_TITLES[model]}: peak memory beyond the weights, pruned against unpruned"
    if measured is None:
        return Row(title, "below in every row")
    unpruned, *others = measured["rows"]
    shares = {row["name"]: row["peak_bytes"] / max(unpruned["peak_bytes"], 1) for row in others}
    highest = max(shares, key=lambda name: shares[name])
    above = [f"{name} {share:.0%}" for name, share in shares.items() if share >= 1]
    text = (
        f"fast {shares['fast']:.0%} of {unpruned['peak_bytes'] / 1e9:.2f} GB; highest: {highest} {shares[highest]:.0%}"
    )
    return Row(title, "below in every row", text, not above, f"Above: {', '.join(above)}." if above else "")


def _scaling(found: Mapping[str, Any] | None) -> list[Row]:
    what, target = "load to select, 50 to 2,000 slices: log-log slope", "≤ 1.1"
    if found is None:
        return [Row(what, target), Row("memory of the 2,000-slice run", "bounded and stated")]
    last = found["rows"][-1]
    multiple = last["peak_bytes"] / last["volume_bytes"]
    gigabytes = f"{last['peak_bytes'] / 1e9:.2f} GB"
    text = gigabytes if found["machine"]["gpu"] else f"{gigabytes}, {multiple:.1f} times its voxels in float32"
    multiples = [row["peak_bytes"] / row["volume_bytes"] for row in found["rows"]]
    bounded = multiple <= 1.1 * max(multiples[:-1])
    shares = [f"{name} {seconds / last['seconds']:.0%}" for name, seconds in last["stages"].items()]
    stages = f"Of the time of {last['slices']} slices: {', '.join(shares)}."
    said = "Times the voxels in float32, from the fewest slices on: " + ", ".join(f"{one:.1f}" for one in multiples)
    return [
        Row(what, target, f"{found['slope']:.2f}; of CPU time {found['cpu_slope']:.2f}", found["slope"] <= 1.1, stages),
        Row("memory of the 2,000-slice run", "bounded and stated", text, bounded, f"{said}."),
    ]


def page(results: Mapping[str, Any]) -> str:
    """Return the page in Markdown.

    Args:
        results: the measurements of each kind of device, "cpu" and "cuda", and those of "serving".
    """
    text = [
        "# Performance",
        "",
        "What pruning saves in time and memory, as ratios to no pruning in the same run. `medpruner benchmark` "
        "measures any settings in the same way; see [how to](how_to.md#measure-time-and-memory).",
        "",
        "Made by `python benchmarks/performance.py ../shared/data/ct_full/s0024.nii.gz`, part by part and model by "
        "model (`--parts`, `--models`; the whole takes more than an hour on one core), and written by `python "
        "benchmarks/performance.py --page docs/performance.md` from `benchmarks/results/performance_*.json`.",
        "",
        "- **Input:** 64 consecutive slices of a CT (287 × 287 pixels, 1.5 mm apart).",
        "- **Models:** the shapes of published models with random weights, since time and memory depend on shapes "
        "alone. On a CPU encoder and language model have a part of their layers. Projectors, image processing and the "
        'scoring layer are whole, so their shares of the time are larger than in the whole model; "multiplied up to '
        'all layers" takes the times of encoder and language model as often as the model has layers.',
        "- **Time:** medians, from the file to the first token. A configuration that takes long is not repeated.",
        "- **Operations** are counted from the configurations; a multiplication and an addition are two.",
        "",
    ]
    for device, title in (("cpu", "CPU"), ("cuda", "GPU")):
        text += [f"## {title}", ""]
        if device not in results:
            text += [
                "Not run: no GPU was at hand. `benchmarks/gpu.sh` measures the same rows there at the full depth, "
                "without loading.",
                "",
            ]
            continue
        text += _device(results[device])
    if "serving" in results:
        text += serving_section(results["serving"])
    return "\n".join(text).rstrip() + "\n"


def _device(results: Mapping[str, Any]) -> list[str]:
    found = [*results.get("shapes", ()), *(results[name] for name in ("scaling",) if name in results)]
    text = [f"{machine_text(found[0]['machine'])}.", ""] if found else []
    rows = must_hold(results)
    text += ["| what | must be | measured | holds |", "| --- | --- | --- | --- |"]
    for row in rows:
        holds = "not measured" if row.holds is None else "yes" if row.holds else "**no**"
        text.append(f"| {row.what} | {row.target} | {row.found or ''} | {holds} |")
    text.append("")
    missed = [row for row in rows if row.holds is False]
    if missed:
        text += ["Missed:", ""]
        text += [f"- **{row.what}**: {row.found}. {row.profile}" for row in missed]
        text.append("")
    for measured in results.get("shapes", ()):
        text += [f"### {_TITLES[measured['model']['name']]}", "", model_text(measured), "", benchmark_table(measured)]
    if "accuracy" in results:
        text += _accuracy(results["accuracy"])
    if "scaling" in results:
        text += _scaling_table(results["scaling"])
    return text


def _accuracy(found: Mapping[str, Any]) -> list[str]:
    families = list(dict.fromkeys(row["family"] for row in found["rows"]))
    names = list(dict.fromkeys(row["name"] for row in found["rows"]))
    cells = {(row["family"], row["name"]): row for row in found["rows"]}
    items = found["rows"][0]["items"]
    text = [
        "### Which baseline is the best",
        "",
        f"Right answers to {items} closed questions about {found['phantoms']} phantoms (`--preset small --seed "
        f"{found['seed']}`), in percent, and the share of the tokens that was kept. Pruners of tokens take every "
        "slice, slice rules keep every token. Down-sampled input is not among them: the image processors enlarge "
        "slices as small as 5 % of the pixels to 256 × 256 (Qwen3-VL) or 896 × 896 (Gemma 3).",
        "",
        "| | " + " | ".join(f"{family}: right, tokens" for family in families) + " |",
        "| --- |" + " --- |" * len(families),
    ]
    for name in names:
        rows = [cells[family, name] for family in families]
        told = [f"{row['right']:.1f}, {100 * row['retention']['overall']:.1f}" for row in rows]
        text.append(f"| {name} | " + " | ".join(told) + " |")
    return [*text, ""]


def _scaling_table(found: Mapping[str, Any]) -> list[str]:
    text = [
        "### From 50 to 2,000 slices",
        "",
        f"`--preset fast`, model {found['model']}: the slices of a CT, forward and backward in turns, 287 × 287 "
        "pixels.",
        "",
        "| slices | kept | load to select, s | CPU, s | peak memory, GB | times the voxels in float32 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        peak = f"{row['peak_bytes'] / 1e9:.2f} | {row['peak_bytes'] / row['volume_bytes']:.1f}"
        text.append(f"| {row['slices']} | {row['kept']} | {row['seconds']:.2f} | {row['cpu_s']:.2f} | {peak} |")
    return [*text, ""]
