"""How far the headline figure moves with the seed of its trainings."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.result import Result

if TYPE_CHECKING:
    from llm_assets.store.artifact import Artifact

CHAIN = "reviews"
SEEDS = 3
MODEL, BASELINE = "finetuned", "tfidf_logistic_regression"


def seeds(preset: str, home: Path) -> Result:
    """Test accuracy of the finetuned model over three seeds, pretraining and finetuning, against TF-IDF + logistic regression on the same split.

    The chain must stand in --home; its own seed is the first of the three, and all stand on its corpus, tokenizer and tokens. TF-IDF learns
    without chance, so it has one figure. Pooled: validation and test documents together, for a figure with less noise. Their ensemble
    answers by the mean of their probabilities' logarithms (after Lakshminarayanan et al. 2017): what averaging such trainings, or teaching a
    student by them, could bring.
    """
    os.environ["LLM_ASSETS_HOME"] = str(home)
    from llm_assets.terminal.settings import spec_of

    spec = spec_of(CHAIN, preset)
    made = [_trained(spec, home, spec.seed + number) for number in range(SEEDS)]
    runs = [one.metrics["models"] for one in made]
    print(f"{'seed':<10}{'finetuned':>12}{'TF-IDF':>12}{'pooled':>12}{'TF-IDF':>12}")
    for number, models in enumerate(runs):
        figures = [split(models[name]) for split in (_test, _pooled) for name in (MODEL, BASELINE)]
        print(f"{spec.seed + number:<10}" + "".join(f"{figure:>12.4f}" for figure in figures))
    _print_ensemble(made)
    mean, baseline = (statistics.mean(_test(models[name]) for models in runs) for name in (MODEL, BASELINE))
    pooled = statistics.mean(_pooled(models[MODEL]) - _pooled(models[BASELINE]) for models in runs)
    spread = [_test(models[MODEL]) for models in runs]
    print(f"mean {mean:.4f}, from {min(spread):.4f} to {max(spread):.4f}; TF-IDF {baseline:.4f}; pooled {100 * pooled:+.2f} points")
    return Result("seeds", round(mean, 4), f"mean test accuracy of {SEEDS} seeds", f"above TF-IDF's {baseline:.4f}", mean > baseline)


def _print_ensemble(made: Sequence[Artifact]) -> None:
    """What the ensemble is worth, what none of its members gets right, and its worth in each domain."""
    import numpy

    import llm_assets
    from llm_assets.evaluation import predictions

    members = [{row["doc_id"]: row for split in predictions.SPLITS for row in predictions.read(one, MODEL, split)} for one in made]
    names = made[0].json("serving.json")["labels"]
    right: dict[str, list[bool]] = defaultdict(list)
    columns = ["doc_id", "domain", "split", "label"]
    for document in llm_assets.open(CHAIN, "evaluation_sets").table("evaluation.parquet", columns).to_pylist():
        rows = [member[document["doc_id"]] for member in members]
        answer = names[int(numpy.log([row["probabilities"] for row in rows]).mean(axis=0).argmax())]
        for group in ("pooled", document["split"], f"of {document['domain']}"):
            right[group].append(answer == document["label"])
        right["any member"].append(any(row["predicted"] == document["label"] for row in rows))
    worth = {group: statistics.mean(map(float, found)) for group, found in right.items()}
    print(f"{'ensemble':<10}{worth['test']:>12.4f}{'':>12}{worth['pooled']:>12.4f}")
    domains = ", ".join(f"{worth[group]:.4f} {group}" for group in sorted(right) if group.startswith("of "))
    print(f"ensemble, pooled: {domains}; no member is right about {1 - worth['any member']:.4f} of the documents")


def _trained(spec: Any, home: Path, seed: int) -> Artifact:
    """The finetuned model of one seed; what stands in the store already is not trained again."""
    import llm_assets
    from llm_assets.links.chain import LINKS
    from llm_assets.links.making import make
    from llm_assets.store.store import Store
    from llm_assets.training.launch import launch

    store = Store(home)
    compute = next(iter(reversed(list(store.journal(CHAIN, "compute").entries()))))["record"]
    inputs = {"compute": compute} | {name: llm_assets.open(CHAIN, name) for name in ("tokens", "tokenizer", "labelled_examples", "evaluation_sets")}
    for name in ("pretrained_checkpoint", "finetuned_model"):
        link = LINKS[name]
        given = {known: inputs[known] for known in link.inputs}
        inputs[name] = make(store, link, getattr(spec, name), given, seed=seed, launch=launch).artifact
    made: Artifact = inputs["finetuned_model"]
    return made


def _test(figures: dict[str, Any]) -> float:
    return float(figures["test"]["accuracy"])


def _pooled(figures: dict[str, Any]) -> float:
    splits = [figures[name] for name in ("validation", "test")]
    return float(sum(split["accuracy"] * split["documents"] for split in splits) / sum(split["documents"] for split in splits))
