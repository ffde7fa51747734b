"""An encoder-decoder beside a decoder of as many weights: the same text, the same tasks, one run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from benchmarks.result import Result
from llm_assets.evaluation.quality import Difference, paired_bootstrap
from llm_assets.links import chain as chains
from llm_assets.links import compute
from llm_assets.links.assistant_scores import FINETUNED
from llm_assets.links.link import Input
from llm_assets.links.making import act, make
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets.training.launch import launch

SEED = 17
TASKS = ("jupyterlab", "django", "bbc")  # whose pairs are learnt and asked: English to Chinese, an article's title
SOURCES = ("news", "chitchat", *TASKS)  # whose text is pretrained on
BUDGET = 1_200_000  # tokens of text that each is pretrained on
EPOCHS = 3  # over the training pairs
CONTEXT = 256  # tokens of a block in both trainings
SENTINELS = 16  # a block may have 13 spans
OBJECTIVES = {"decoder": "causal", "encoder-decoder": "span_denoising"}
EQUAL = 0.05  # share by which their weights may differ
MEASURED = {"translation": (("chrf", "bleu"), "copy"), "titles": (("rouge1", "rouge2", "rougel"), "lead_sentence")}


def encoder_decoder(preset: str, home: Path) -> Result:
    """An encoder-decoder (T5's shape, span denoising) against a decoder (Llama's) with as many weights, on translation and titles.

    Both of the size micro over one tokenizer, pretrained on the same 1.2M tokens of text (People's Daily, English chitchat, the pairs and
    articles themselves, evaluation documents left out) and finetuned for three epochs on the same pairs, in blocks of 256 tokens,
    pretrained with the learning rate of the size and finetuned with the chain's. English to Chinese (JupyterLab, Django): chrF and BLEU
    beside the source copied; titles of BBC articles: ROUGE beside the first sentence. The difference of the two on each test document
    (its chrF, its ROUGE-L) has a 95% interval over documents; it says nothing of another training. No target: whichever is better is said.
    """
    os.environ["LLM_ASSETS_HOME"] = str(home)  # whose erasures the corpus leaves out
    models = Models(home)
    runs = {kind: models.trained(objective) for kind, objective in OBJECTIVES.items()}
    weights = {kind: run[0].metrics["parameters"] for kind, run in runs.items()}
    if abs(weights["encoder-decoder"] / weights["decoder"] - 1) > EQUAL:
        raise AssertionError(f"the two are not of equal size: {weights}")
    for kind, (pretrained, finetuned) in runs.items():
        _show(kind, pretrained, finetuned)
    found = {task: paired_bootstrap(*(_by_document(runs[kind][1], task) for kind in ("encoder-decoder", "decoder"))) for task in MEASURED}
    for task, difference in found.items():
        assert difference is not None  # they were asked the same documents
        print(f"{task}: {_verdict(difference)}")
    points = found["translation"]
    assert points is not None
    return Result("encoder_decoder", round(points.mean, 2), "points of chrF a translation above the decoder", "shown, not reached for", True)


class Models:
    """The chain `assistant` up to its finetuned model, with fewer sources, for one objective of pretraining or another."""

    def __init__(self, home: Path) -> None:
        self.store = Store(home)
        self.links = {link.name: link for link in chains.without(chains.GENERATION, ["aligned_model"])}
        self.sections = _sections()
        found, _ = act(self.store, compute.LINK, compute.ComputeConfig(), {}, chain="encoder_decoder", run_id=None, trial=False)
        self.made: dict[str, Input] = {"compute": found["record"]}
        for name in ("raw_corpus", "screened_corpus", "evaluation_sets", "clean_corpus", "tokenizer", "tokens", "labelled_examples"):
            self.made[name] = self._make(name, self.made)

    def trained(self, objective: str) -> tuple[Artifact, Artifact]:
        """The checkpoint pretrained with an objective, and what is finetuned from it."""
        checkpoint = self._make("pretrained_checkpoint", self.made, objective=objective)
        return checkpoint, self._make("finetuned_model", {**self.made, "pretrained_checkpoint": checkpoint})

    def _make(self, name: str, made: dict[str, Input], **changes: Any) -> Artifact:
        link = self.links[name]
        config = link.config.model_validate({**self.sections.get(name, {}), **changes})
        inputs = {needed: made[needed] for needed in link.inputs}
        outcome = make(self.store, link, config, inputs, seed=SEED, launch=launch)
        for verdict in outcome.verdicts:
            if not verdict.passed:
                print(f"{name}: {verdict.check} failed: {verdict.description}")
        return outcome.artifact


def _sections() -> dict[str, Any]:
    """The sections of the chain's YAML, over the sources and in the sizes of this benchmark."""
    path = Path(chains.__file__).parents[1] / "defs" / "assistant" / "defs.yaml"
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["attributes"]
    found["raw_corpus"]["sources"] = [source for source in found["raw_corpus"]["sources"] if source["name"] in SOURCES]
    found["evaluation_sets"]["sources"] = found["labelled_examples"]["sources"] = list(TASKS)
    found["tokenizer"]["sentinels"] = SENTINELS
    found["tokens"] = {"context": CONTEXT, "weights": {"chitchat": 0.5}}
    found["pretrained_checkpoint"] = {"size": "micro", "tokens_budget": BUDGET, "zero_stage": 1, "processes": 2, "required_drop": 0.0}
    found["finetuned_model"] |= {"epochs": EPOCHS, "evaluations_per_epoch": 1, "max_length": CONTEXT, "required_gain": 0.0}
    found["finetuned_model"]["asked"] = {"answered": 1000, "ranked": 1}
    return found


def _show(kind: str, pretrained: Artifact, finetuned: Artifact) -> None:
    """What one is, and each task's scores beside the baseline's."""
    text = finetuned.metrics["models"]
    spent = pretrained.manifest.seconds + finetuned.manifest.seconds
    print(f"{kind}: {pretrained.metrics['parameters']:,} weights, of them {pretrained.metrics['body_parameters']:,} in layers")
    print(
        f"  processed {pretrained.metrics['tokens']:,} tokens in pretraining and {finetuned.metrics['tokens']:,} in finetuning, {spent:.0f} s in all"
    )
    print(f"  {text[FINETUNED]['test']['bits_per_byte']:.3f} bits a byte of the test answers")
    for task, (figures, baseline) in MEASURED.items():
        shown = ", ".join(f"{name} {text[FINETUNED]['test'][name]:.4g} ({baseline} {text[baseline]['test'][name]:.4g})" for name in figures)
        print(f"  {task}: {shown}")


def _by_document(finetuned: Artifact, task: str) -> dict[str, float]:
    """Of each test document of a task what its answer is worth by itself: chrF, or ROUGE-L."""
    import sacrebleu

    from llm_assets.evaluation.generation import titles

    rows = finetuned.table("predictions.parquet", ["model", "split", "doc_id", "task", "reference", "answer"]).to_pylist()
    asked = [row for row in rows if (row["model"], row["split"], row["task"]) == (FINETUNED, "test", task) and row["answer"] is not None]
    if task == "titles":
        return {row["doc_id"]: titles([row["answer"]], [row["reference"]])["rougel"] for row in asked}
    return {row["doc_id"]: sacrebleu.sentence_chrf(row["answer"], [row["reference"]]).score for row in asked}


def _verdict(difference: Difference) -> str:
    """Which is ahead on the documents, where the interval says so."""
    ahead = "the encoder-decoder" if difference.low > 0 else "the decoder" if difference.high < 0 else "neither"
    interval = f"{difference.mean:+.3f} a document, 95% interval {difference.low:+.3f} to {difference.high:+.3f} over {difference.documents}"
    return f"{ahead} is ahead (encoder-decoder less decoder: {interval})"
