"""How far the headline figure moves with the seed of its trainings."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

from benchmarks.result import Result

CHAIN = "reviews"
SEEDS = 3
MODEL, BASELINE = "finetuned", "tfidf_logistic_regression"


def seeds(preset: str, home: Path) -> Result:
    """Test accuracy of the finetuned model over three seeds, pretraining and finetuning, against TF-IDF + logistic regression on the same split.

    The chain must stand in --home; its own seed is the first of the three, and all stand on its corpus, tokenizer and tokens. TF-IDF learns
    without chance, so it has one figure. Pooled: validation and test documents together, for a figure with less noise.
    """
    os.environ["LLM_ASSETS_HOME"] = str(home)
    from llm_assets.terminal.settings import spec_of

    spec = spec_of(CHAIN, preset)
    runs = [_trained(spec, home, spec.seed + number) for number in range(SEEDS)]
    print(f"{'seed':<10}{'finetuned':>12}{'TF-IDF':>12}{'pooled':>12}{'TF-IDF':>12}")
    for number, models in enumerate(runs):
        figures = [split(models[name]) for split in (_test, _pooled) for name in (MODEL, BASELINE)]
        print(f"{spec.seed + number:<10}" + "".join(f"{figure:>12.4f}" for figure in figures))
    mean, baseline = (statistics.mean(_test(models[name]) for models in runs) for name in (MODEL, BASELINE))
    pooled = statistics.mean(_pooled(models[MODEL]) - _pooled(models[BASELINE]) for models in runs)
    spread = [_test(models[MODEL]) for models in runs]
    print(f"mean {mean:.4f}, from {min(spread):.4f} to {max(spread):.4f}; TF-IDF {baseline:.4f}; pooled {100 * pooled:+.2f} points")
    return Result("seeds", round(mean, 4), f"mean test accuracy of {SEEDS} seeds", f"above TF-IDF's {baseline:.4f}", mean > baseline)


def _trained(spec: Any, home: Path, seed: int) -> dict[str, Any]:
    """The scores of one seed's models by name; what stands in the store already is not trained again."""
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
    models: dict[str, Any] = inputs["finetuned_model"].metrics["models"]
    return models


def _test(figures: dict[str, Any]) -> float:
    return float(figures["test"]["accuracy"])


def _pooled(figures: dict[str, Any]) -> float:
    splits = [figures[name] for name in ("validation", "test")]
    return float(sum(split["accuracy"] * split["documents"] for split in splits) / sum(split["documents"] for split in splits))
