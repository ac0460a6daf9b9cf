# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The part of the page of performance about serving, from the JSON file of vllm_serving.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_medpruner.benchmark import machine_text

PLAIN, UNCACHED, CACHED = "transformers", "vllm without its prefix cache", "vllm"


def serving_section(found: Mapping[str, Any]) -> list[str]:
    """Return the lines of the section.

    Args:
        found: what was measured.
    """
    model = found["model"]
    text = [
        "## Serving",
        "",
        f"Questions about studies on vLLM {found['vllm']} and on transformers, by `benchmarks/vllm_serving.py`. "
        f"{machine_text(found['machine'])}. Seconds are CPU seconds of one thread, because other programs ran on the "
        f"machine (load {found['load']:g} on {found['machine']['cores']} cores at the start); on an idle core they are "
        "the seconds on the clock. Small differences mean nothing.",
        "",
        f"- **Model:** Qwen3-VL with random weights, {model['num_hidden_layers']} language layers of width "
        f"{model['hidden_size']}, float32. The encoder is left out: it costs the same on both.",
        f"- **Input:** {found['studies']} studies of {found['slices']} slices, {found['questions']} questions each, "
        f"{found['new_tokens']} new tokens. A study's questions are sent together.",
        "- **Pruned** studies keep 5 % of each slice's tokens, and the contextual tokens that the rest is merged into.",
        "- **First and second:** the first token of a study's first question, and of the next one; medians over the "
        "studies.",
        "",
        "| engine | tokens | prompt | first, s | second, s | questions per minute |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    rows = {(one["engine"], one["share"]): one for one in found["rows"]}
    for (engine, share), row in rows.items():
        seconds = row["first_token_s"]
        told = (
            f"{seconds['first']['cpu']:.2f} | {seconds['second']['cpu']:.2f} | {row['questions_per_minute']['cpu']:.0f}"
        )
        text.append(f"| {engine} | {share:.0%} | {row['prompt_tokens']} | {told} |")
    rates = {key: row["questions_per_minute"]["cpu"] for key, row in rows.items()}
    pruned = min(share for _, share in rates)
    base = rates[UNCACHED, 1.0]
    text += [
        "",
        f"Questions per minute in vLLM against neither prefix cache nor pruning: pruning alone "
        f"{rates[UNCACHED, pruned] / base:.1f}×, the prefix cache alone {rates[CACHED, 1.0] / base:.1f}×, both "
        f"{rates[CACHED, pruned] / base:.1f}×. vLLM against transformers, which keeps the beginning of a study's "
        f"prompt too: {rates[CACHED, 1.0] / rates[PLAIN, 1.0]:.1f}× unpruned, "
        f"{rates[CACHED, pruned] / rates[PLAIN, pruned]:.1f}× pruned.",
        "",
    ]
    return text
