"""Chains that answer otherwise than with one label of a short text, from examples to a scorecard: the real worker, one process that stays."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast

from llm_assets.evaluation import predictions
from llm_assets.evaluation.torch_classifier import TorchClassifier
from llm_assets.links import finetuned_model, quantized_model, scorecard
from llm_assets.links.link import Office
from llm_assets.links.making import Outcome, make
from llm_assets.links.scorecard_page import as_markdown
from llm_assets.serving.engine import OnnxClassifier, decided
from llm_assets.store.artifact import Artifact
from llm_assets.store.journal import Journal
from llm_assets.store.store import Store
from llm_assets_tests.links import trained
from llm_assets_tests.training.room import launch_in_room

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 66}
FINETUNING = {"max_length": 32, "epochs": 5, "micro_batch": 8, "learning_rate": 1e-2, "processes": 1, "evaluations_per_epoch": 1}
CHARACTERS = list(dict.fromkeys(trained.GOOD + trained.BAD + trained.NEUTRAL))


@dataclass(frozen=True)
class Chain:
    """What a chain made."""

    inputs: dict[str, Artifact]
    finetuned: Outcome
    quantized: Outcome

    @property
    def worth(self) -> dict[str, Any]:
        return self.finetuned.artifact.metrics["models"]["finetuned"]["test"]


def tokenizer(folder: Path, padding: str, *special: str) -> None:
    """A tokenizer whose special tokens are called ``special`` and numbered in that order: padding, opening, closing, unknown, mask by role."""
    vocabulary = {token: number for number, token in enumerate([*special, *CHARACTERS])}
    opening, closing, unknown, mask = (token for token in sorted(special, key=special.index) if token != padding)
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    ends = [(opening, vocabulary[opening]), (closing, vocabulary[closing])]
    raw.post_processor = processors.TemplateProcessing(single=f"{opening} $A {closing}", special_tokens=ends)
    names = {"pad_token": padding, "unk_token": unknown, "cls_token": opening, "sep_token": closing, "mask_token": mask}
    PreTrainedTokenizerFast(tokenizer_object=raw, **names).save_pretrained(folder)


def encoder(folder: Path, kind: str, **settings: Any) -> None:
    torch.manual_seed(0)
    words = 5 + len(CHARACTERS)
    AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **SHAPE, vocab_size=words, **settings)).save_pretrained(folder)


EVERY = (trained.GOOD, trained.BAD, trained.GOOD + trained.BAD, trained.NEUTRAL)


def texts(label: Callable[[str], str], kinds: Sequence[str] = EVERY, length: int = 12, tail: int = 12) -> tuple[list[str], list[str]]:
    """Texts of each of ``kinds`` of telling characters, all of them among the last ``tail``, and their labels."""
    rng = random.Random(0)
    found = []
    for _ in range(400):
        telling = rng.choice(kinds)
        signs = [rng.choice(telling if rng.random() < 0.4 else trained.NEUTRAL) for _ in range(tail)]
        found.append("".join([*(rng.choice(trained.NEUTRAL) for _ in range(length - len(signs))), *signs]))
    return found, [label(text) for text in found]


def corpus(folder: Path, material: tuple[Sequence[str], Sequence[str]], problem: str, labels: list[str]) -> dict[str, Artifact]:
    """labelled_examples and evaluation_sets of so many texts."""
    splits = ["train"] * 280 + ["validation"] * 40 + ["test"] * 80
    rows = list(zip([f"{number:020x}" for number in range(400)], *material, splits, strict=True))
    made = {}
    for name, file, kept in (("labelled_examples", "train.parquet", {"train"}), ("evaluation_sets", "evaluation.parquet", {"validation", "test"})):
        chosen = [row for row in rows if row[3] in kept]
        (folder / name).mkdir(parents=True)
        columns = dict(zip(("doc_id", "text", "label", "split"), map(list, zip(*chosen, strict=True)), strict=True))
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / name / file)
        (folder / name / "labels.json").write_text(json.dumps(labels))
        made[name] = trained.artifact(folder / name, name, config={"problem": problem})
    return made


def chain(name: str, kind: str, special: tuple[str, ...], made: dict[str, Artifact], architecture: dict[str, Any], **config: Any) -> Chain:
    """Finetune an encoder with random weights and quantize the result."""
    folder = trained.root() / name
    (folder / "encoder").mkdir(parents=True)
    tokenizer(folder / "tokenizer", *special)
    encoder(folder / "encoder", kind, **architecture)
    given = {
        **made,
        "tokenizer": trained.artifact(folder / "tokenizer", "tokenizer"),
        "pretrained_checkpoint": trained.artifact(folder / "encoder", "pretrained_checkpoint"),
        "compute": trained.COMPUTE,
    }
    store = Store(folder / "data")
    settings = finetuned_model.FinetunedModelConfig(**{**FINETUNING, **config})
    link = finetuned_model.LINK
    finetuned = make(store, link, settings, {key: given[key] for key in link.inputs}, seed=1, launch=launch_in_room)
    given["finetuned_model"] = finetuned.artifact
    link = quantized_model.LINK
    rounding = quantized_model.QuantizedModelConfig(method="dynamic", allowed_drop=0.05)
    quantized = make(store, link, rounding, {key: given[key] for key in link.inputs}, seed=1, launch=launch_in_room)
    return Chain(given, finetuned, quantized)


MODERN = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
BRACKETS = ("[PAD]", "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
ANGLES = ("<pad>", "<s>", "<pad>", "</s>", "<unk>", "<mask>")  # as RoBERTa numbers them: padding is 1


@functools.cache
def several() -> Chain:
    """Texts that are good, bad, both or neither, over a RoBERTa with its own tokenizer; every baseline there is."""

    def label(text: str) -> str:
        return "|".join(name for name, signs in (("bad", trained.BAD), ("good", trained.GOOD)) if set(signs) & set(text))

    made = corpus(trained.root() / "several", texts(label), "multi_label", ["bad", "good"])
    names = ("majority", "tfidf_logistic_regression", "conv1d", "lstm", "gru")
    return chain(
        "several-model",
        "roberta",
        ANGLES,
        made,
        {"pad_token_id": 1, "initializer_range": 0.2},
        problem="multi_label",
        baselines=names,
        patience=2,
        epochs=12,
        learning_rate=5e-3,
    )


@functools.cache
def numbers() -> Chain:
    """How many more good than bad characters a text has."""

    def label(text: str) -> str:
        return str(float(sum((character in trained.GOOD) - (character in trained.BAD) for character in text)))

    made = corpus(trained.root() / "numbers", texts(label), "regression", ["value"])
    return chain("numbers-model", "modernbert", BRACKETS, made, MODERN, problem="regression", epochs=12)


@functools.cache
def windows() -> Chain:
    """Texts of 60 tokens whose last 20 alone tell the label, read 24 at once."""

    def label(text: str) -> str:
        return (
            "positive" if sum(character in trained.GOOD for character in text) > sum(character in trained.BAD for character in text) else "negative"
        )

    made = corpus(trained.root() / "windows", texts(label, (trained.GOOD, trained.BAD), 58, 20), "single_label", trained.LABELS)
    settings = {"long_texts": "windows", "window_overlap": 4, "max_length": 24, "baselines": ("majority",), "epochs": 4}
    return chain("windows-model", "modernbert", BRACKETS, made, MODERN, **settings)


def scored(found: Chain, folder: Path) -> dict[str, Any]:
    (folder / "act").mkdir()
    office = Office("tiny", folder, Journal(folder / "journal" / "tiny" / "scorecard.jsonl"), folder / "act")
    inputs = {**found.inputs, "quantized_model": found.quantized.artifact}
    acted = scorecard.scorecard(
        office, scorecard.ScorecardConfig(latency_calls=3, allowed_drop=0.05), **{key: inputs[key] for key in scorecard.LINK.inputs}
    )
    assert all(check.judge(acted.record, {}).passed for check in scorecard.LINK.checks)
    return dict(acted.record)


def served_alike(found: Chain) -> None:
    """The engine's answers are those of torch within what rounding costs, and the ones that were recorded."""
    examples = predictions.Examples.read(found.inputs["evaluation_sets"]).of("test")
    reference = TorchClassifier(found.finetuned.artifact.directory)
    engine = OnnxClassifier(found.quantized.artifact.directory)
    answers, floating = engine.classify(examples.texts), reference.classify(examples.texts)
    spread = max(1.0, float(numpy.ptp(floating)))
    assert numpy.abs(numpy.array(answers) - numpy.array(floating)).mean() < 0.05 * spread
    rows = predictions.read(found.quantized.artifact, "quantized", "test")
    recorded = {row["doc_id"]: row["probabilities"] for row in rows}
    for doc_id, row in zip(examples.doc_ids, answers, strict=True):
        assert recorded[doc_id] == pytest.approx(row, abs=0.05 * spread)


def test_several_labels_are_learnt_and_compared_with_every_baseline(tmp_path: Path) -> None:
    found = several()
    assert all(verdict.passed for outcome in (found.finetuned, found.quantized) for verdict in outcome.verdicts), found.finetuned.verdicts
    assert found.worth["micro_f1"] > 0.9 and found.worth["subset_accuracy"] > 0.8
    models = found.finetuned.artifact.metrics["models"]
    assert set(models) == {"finetuned", "majority", "tfidf_logistic_regression", "conv1d", "lstm", "gru"}
    for name in ("tfidf_logistic_regression", "conv1d", "lstm", "gru"):
        assert models[name]["test"]["micro_f1"] > models["majority"]["test"]["micro_f1"], name
    for name in ("conv1d", "lstm", "gru"):
        assert models[name]["peak_memory_bytes"] > 0 and models[name]["p50_ms"] > 0 and models[name]["training_seconds"] > 0
        kept = TorchClassifier(found.finetuned.artifact.path(f"baselines/{name}"), found.finetuned.artifact.directory)
        rows = predictions.read(found.finetuned.artifact, name, "test")
        examples = predictions.Examples.read(found.inputs["evaluation_sets"]).of("test")
        assert [decided("multi_label", row, kept.labels) for row in kept.classify(examples.texts)] == [row["predicted"] for row in rows]
    served_alike(found)
    record = scored(found, tmp_path)
    assert {model["name"] for model in record["models"]} == {*models, "quantized"}
    timed = {model["name"]: model["timed"] for model in record["models"]}
    assert timed["conv1d"] == timed["finetuned"] == "when made" and timed["majority"] == timed["quantized"] == "now"
    assert all(model["test_micro_f1_interval"][0] <= model["test_micro_f1"] <= model["test_micro_f1_interval"][1] for model in record["models"])
    assert (tmp_path / "act" / "plots" / "confusion.png").is_file()
    assert "| all labels right |" in (page := as_markdown(record)) and "| conv1d |" in page


def test_training_that_gets_no_better_ends_early_and_the_best_is_kept() -> None:
    metrics = several().finetuned.artifact.metrics
    rows = [row for row in several().finetuned.artifact.table("curve.parquet").to_pylist() if row["validation_micro_f1"] is not None]
    best = max(rows, key=lambda row: (row["validation_micro_f1"], -row["validation_loss"]))
    assert metrics["best"]["step"] == best["step"] and metrics["best"]["score"] == best["validation_micro_f1"]
    assert metrics["steps"] == rows[-1]["step"] and len(rows) - 1 - rows.index(best) <= 2  # patience


def test_numbers_are_learnt(tmp_path: Path) -> None:
    found = numbers()
    assert all(verdict.passed for outcome in (found.finetuned, found.quantized) for verdict in outcome.verdicts), found.finetuned.verdicts
    assert found.worth["r2"] > 0.5 and found.worth["pearson"] > 0.7
    assert found.finetuned.artifact.metrics["models"]["tfidf_logistic_regression"]["test"]["r2"] > 0.5
    served_alike(found)
    record = scored(found, tmp_path)
    low, high = next(model for model in record["models"] if model["name"] == "quantized")["test_r2_interval"]
    assert low <= next(model for model in record["models"] if model["name"] == "quantized")["test_r2"] <= high
    assert "squared error less than the baseline" in as_markdown(record)


def test_what_stands_at_the_end_of_a_long_text_counts_and_windows_are_counted(tmp_path: Path) -> None:
    found = windows()
    assert all(verdict.passed for outcome in (found.finetuned, found.quantized) for verdict in outcome.verdicts), found.finetuned.verdicts
    assert found.worth["accuracy"] > 0.8
    lengths = found.finetuned.artifact.metrics["long_texts"]
    assert lengths["test"] == {"documents": 80, "tokens": 80 * 60, "longer": 80, "windows": 80 * 3, "samples": 80 * 3}
    assert found.finetuned.artifact.metrics["samples"] == lengths["train"]["samples"] == 280 * 3
    served_alike(found)
    examples = predictions.Examples.read(found.inputs["evaluation_sets"]).of("test")
    cut = TorchClassifier(found.finetuned.artifact.directory)
    cut.overlap = None
    answers = [decided("single_label", row, cut.labels) for row in cut.classify(examples.texts)]
    assert numpy.mean([said == label for said, label in zip(answers, examples.labels, strict=True)]) < 0.7


def test_torch_and_engine_read_the_same_windows() -> None:
    found = windows()
    from llm_assets.training.batches import encode_texts

    reference, engine = TorchClassifier(found.finetuned.artifact.directory), OnnxClassifier(found.quantized.artifact.directory)
    every = ["好", "好" * 22, "好" * 23, predictions.Examples.read(found.inputs["evaluation_sets"]).texts[0]]
    ids, documents = encode_texts(reference.tokenizer, every, reference.max_length, reference.overlap)
    assert engine.encode(every) == [[window for window, document in zip(ids, documents, strict=True) if document == number] for number in range(4)]
