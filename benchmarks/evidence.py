# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Evaluate the effect of pruning on answers, with the small trained models on phantoms of a new seed.

Writes ``evidence_phantoms.md`` with its tables and plots. All numbers come from the files under ``--work``; an
interrupted run resumes from them. Everything here is synthetic: small models, trained and evaluated on phantoms.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from evidence_page import write_page
from monai.transforms import Compose, Lambdad

from monai_medpruner.bundles import open_bundle
from monai_medpruner.data.phantom import PRESETS, phantom_command
from monai_medpruner.evaluation import BenchmarkEvaluator, Variant
from monai_medpruner.pruners import AveragePoolingPruner, NucleusPruner, RandomTokensPruner
from monai_medpruner.transforms import InterSliceAnchorFilterd, SliceLimitd, TimedCompose

FAMILIES = ("qwen3_vl", "gemma3", "video_llama_3")
SUBSET_DIVISOR = 3  # the additional configurations are evaluated on this fraction of the phantoms: one in three
BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "medpruner_phantom"


def filtered(gamma: float | None) -> TimedCompose:
    """Return the slice filter (IAF) with threshold γ; None keeps all slices."""
    return TimedCompose("filter", InterSliceAnchorFilterd("image", gamma))


def uniform(count: int) -> TimedCompose:
    """Return a selection of evenly spaced slices."""
    return TimedCompose("filter", SliceLimitd("image", count, "linspace"))


def medpruner_name(gamma: float, tau: float, min_tokens: int = 1) -> str:
    """Return the name of the variant with these settings."""
    return f"MedPruner, γ {gamma:g}, τ {tau:g}" + (f", min {min_tokens} per slice" if min_tokens > 1 else "")


def own_settings() -> dict[str, Any]:
    """Return the settings of the bundle's slice filter and pruner."""
    workflow = open_bundle(BUNDLE)
    pruner = workflow.parser.get_parsed_content("token_pruner")
    own = {name: getattr(pruner, name) for name in ("tau", "temperature", "min_tokens")}
    return {"gamma": workflow.parser.get_parsed_content("optional::gamma"), **own}


def main_names(gamma: float, tau: float, temperature: float, min_tokens: int) -> list[str]:
    """Return the names of the variants that are evaluated on all phantoms; the others use a subset."""
    own = [(gamma, min_tokens), (0.01, 1), (0.01, 2), (0.015, 1)]
    baselines = ["uniform slices, 3", "uniform slices, 5", "random tokens, 0.027", "random tokens, 0.05"]
    baselines += ["average pooling, 3 x 3", "average pooling, 6 x 6"]
    names = [
        "unpruned",
        *(medpruner_name(one, tau, minimum) for one, minimum in own),
        f"DINS alone, τ {tau:g}",
        *baselines,
    ]
    return list(dict.fromkeys(names))


def variants(gamma: float, tau: float, temperature: float, min_tokens: int) -> dict[str, Variant]:
    """Return all configurations of the page by name, including the settings of the bundle."""
    every, chosen = filtered(None), filtered(gamma)
    filters = {one: filtered(one) for one in (0.01, 0.015, 0.02, 0.04)} | {gamma: chosen}

    def nucleus(share: float = tau, **options: Any) -> NucleusPruner:
        return NucleusPruner(**{"tau": share, "temperature": temperature, **options})

    configurations: dict[str, tuple[Callable, Any]] = {"unpruned": (every, None)}
    configurations |= {f"IAF alone, γ {one:g}": (filters[one], None) for one in (gamma, 0.04)}
    configurations |= {f"DINS alone, τ {one:g}": (every, nucleus(one)) for one in (tau, 0.3, 0.6)}
    configurations |= {medpruner_name(gamma, tau, min_tokens): (chosen, nucleus(min_tokens=min_tokens))}
    configurations |= {medpruner_name(gamma, one): (chosen, nucleus(one)) for one in (0.05, 0.3, 0.6)}
    configurations |= {medpruner_name(one, tau): (slices, nucleus()) for one, slices in filters.items()}
    configurations |= {medpruner_name(0.01, tau, 2): (filters[0.01], nucleus(min_tokens=2))}
    configurations |= {f"uniform slices, {one}": (uniform(one), None) for one in (3, 5, 12)}
    configurations |= {
        f"random tokens, {one:g}": (every, RandomTokensPruner(keep_ratio=one)) for one in (0.027, 0.05, 0.25)
    }
    configurations |= {f"average pooling, {one} x {one}": (every, AveragePoolingPruner(pool=one)) for one in (2, 3, 6)}
    configurations |= {
        "scale of the paper, τ 0.9, T 1": (chosen, nucleus(0.9, temperature=1.0, importance_scale="paper")),
        "scale as released, τ 0.9, T 2": (chosen, nucleus(0.9, temperature=2.0)),
        f"scale as released, τ {tau:g}, T 0.5": (chosen, nucleus(temperature=0.5)),
        f"scale as released, τ {tau:g}, T 2": (chosen, nucleus(temperature=2.0)),
    }
    for size, threshold in ((12.5, 0.3), (25, 0.35)):
        guard = InterSliceAnchorFilterd("image", 0.04, guard_mm=size, guard_threshold=threshold)
        configurations[f"option: γ 0.04, τ {tau:g}, guard of {size:g} mm"] = (TimedCompose("filter", guard), nucleus())
    configurations |= {
        "option: one nucleus per volume, τ 0.05": (every, nucleus(0.05, scope="volume")),
        "option: one nucleus per volume, τ 0.2": (every, nucleus(0.2, scope="volume")),
        f"option: γ {gamma:g}, τ {tau:g}, scores clipped at 2": (chosen, nucleus(max_importance=2.0)),
        f"option: γ {gamma:g}, τ {tau:g}, scores clipped at 3": (chosen, nucleus(max_importance=3.0)),
        f"option: γ {gamma:g}, τ {tau:g}, without merging": (chosen, nucleus(contextual_ratio=0.0)),
    }
    return {name: Variant(name, slices, pruner, {"variant": name}) for name, (slices, pruner) in configurations.items()}


def evaluator_arguments(family: str, data: Path, device: str | None) -> dict[str, Any]:
    """Return the arguments shared by all evaluations of a family."""
    own = {"family": family, "dataset_dir": str(data), "task": "closed"}
    own |= {"dataset::transform": "@preprocessing::transforms::0"} | ({"device": device} if device else {})
    workflow = open_bundle(BUNDLE, own, configs=("inference", "evaluate"))
    names = {"device": "device", "val_data_loader": "dataloader", "network": "network_def", "items": "items"}
    names |= {"protocol": "protocol", "settings": "evaluator::settings", "val_handlers": "handlers"}
    return {name: workflow.parser.get_parsed_content(part) for name, part in names.items()}


def evaluate_family(family: str, data: Path, output: Path, device: str | None) -> None:
    """Evaluate all variants of a family, and its blind and shuffled baselines."""
    shared = evaluator_arguments(family, data, device)
    chosen = own_settings()
    every = variants(**chosen)
    main_variants = [every.pop(name) for name in main_names(**chosen)]
    BenchmarkEvaluator(output_dir=output, variants=main_variants, **shared).run()
    images = list(dict.fromkeys(item["image"] for item in shared["items"]))
    first = images[: -(-len(images) // SUBSET_DIVISOR)]
    subset = {**shared, "items": [item for item in shared["items"] if item["image"] in first]}
    BenchmarkEvaluator(output_dir=output, variants=list(every.values()), **subset).run()
    dataset = shared["val_data_loader"].dataset
    load = dataset.transform
    blind = [load, TimedCompose("filter", SliceLimitd("image", 1, "linspace")), Lambdad("image", torch.zeros_like)]
    dataset.transform = Compose(blind)
    run_baseline(shared, output / "blind", "blind: one black slice")
    dataset.transform = Compose([load, filtered(chosen["gamma"])])
    following = dict(zip(first, first[1:] + first[:1], strict=True))
    subset["items"] = [{**item, "image": following[item["image"]]} for item in subset["items"]]
    run_baseline(subset, output / "shuffled", "shuffled: the volume of another phantom")


def run_baseline(shared: dict[str, Any], folder: Path, name: str) -> None:
    """Evaluate a baseline with other input images."""
    settings = {**shared["settings"], "variant": name}
    BenchmarkEvaluator(output_dir=folder, **{**shared, "settings": settings}).run()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    trained = [family for family in FAMILIES if (BUNDLE / "models" / family).is_dir()]
    parser.add_argument("--families", nargs="+", default=trained, choices=trained, help="default: all trained families")
    parser.add_argument(
        "--count",
        type=int,
        default=120,
        help="number of phantoms, about 4.3 questions each (default: 120)",
    )
    parser.add_argument(
        "--seed", type=int, default=2026, help="seed of the phantoms; must differ from the training seeds"
    )
    parser.add_argument("--work", type=Path, default=Path("out/evidence"), help="folder of phantoms and predictions")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of evidence_phantoms.md and its plots")
    parser.add_argument("--device", help="device such as cuda:0 (default: that of the bundle)")
    parser.add_argument("--page_only", action="store_true", help="write the page from existing predictions")
    options = parser.parse_args(arguments)
    logging.getLogger("monai_medpruner").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    data = options.work / "phantoms"
    if not options.page_only:
        phantom_command(options.count, options.seed, data, PRESETS["small"])
        for family in options.families:
            evaluate_family(family, data, options.work / family, options.device)
    own = own_settings()
    name = medpruner_name(own["gamma"], own["tau"], own["min_tokens"])
    write_page(options.work, options.families, data, name, options.out)


if __name__ == "__main__":
    main()
