"""A chain's model links made once for all tests: learnable nonsense, a model of 20,000 parameters, the real worker."""

from __future__ import annotations

import atexit
import functools
import json
import random
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from llm_assets.corpus.vocabulary import sentinels
from llm_assets.links import finetuned_model, pretrained_checkpoint, quantized_model
from llm_assets.links.link import Input, Link, Section
from llm_assets.links.making import Outcome, make
from llm_assets.store.artifact import Artifact
from llm_assets.store.manifest import Manifest, describe_files
from llm_assets.store.progress import Progress, silent
from llm_assets.store.store import Store
from llm_assets.training.launch import launch

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GOOD, BAD, NEUTRAL = "好棒喜欢赞", "坏差讨厌烂", "书店房间电脑屏幕早餐快递"
LABELS = ["negative", "positive"]
CONTEXT = 32
COMPUTE = {"devices": [{"kind": "cpu", "name": "test", "count": 1, "memory_bytes": 2**33}], "cores": 1, "matmul_gflops": 10.0, "memory_gb_per_s": 5.0}
PRETRAINING = pretrained_checkpoint.PretrainedCheckpointConfig(
    hidden=32,
    layers=2,
    heads=2,
    intermediate=48,
    steps=40,
    micro_batch=4,
    accumulation=1,
    learning_rate=1e-2,
    processes=2,
    zero_stage=2,
    required_drop=0.1,
    embeddings="random",
)
FINETUNING = finetuned_model.FinetunedModelConfig(max_length=32, epochs=4, micro_batch=8, learning_rate=1e-2, processes=2)


def launch_quietly(job: Path, processes: int, progress: Progress) -> None:
    """The real launcher, one thread a process."""
    launch(job, processes, progress, {"OMP_NUM_THREADS": "1"})


def artifact(folder: Path, link: str, metrics: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None) -> Artifact:
    """An artifact over files that stand in ``folder`` already."""
    manifest = Manifest(
        link=link, fingerprint=folder.name, data_version=folder.name, recipe={"config": dict(config or {})}, inputs={},
        files=describe_files(folder), licenses=["MIT"], metrics=dict(metrics or {}), libraries={}, code={}, host="test",
        started="2026-01-01T00:00:00+00:00", seconds=1, core_seconds=1, peak_memory_bytes=1,
    )  # fmt: skip
    return Artifact(folder, manifest)


def changed(
    original: Artifact, metrics: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None, directory: Path | None = None
) -> Artifact:
    """A copy with other metrics, other config values or another folder, for checks that must fail."""
    recipe = {**original.manifest.recipe, "config": {**original.manifest.recipe["config"], **(config or {})}}
    manifest = original.manifest.model_copy(update={"metrics": {**original.metrics, **(metrics or {})}, "recipe": recipe})
    return Artifact(directory or original.directory, manifest)


@functools.cache
def root() -> Path:
    """A folder that lives as long as the test session."""
    folder = Path(tempfile.mkdtemp(prefix="llm-assets-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def corpus() -> dict[str, Artifact]:
    """tokenizer, tokens, labelled_examples and evaluation_sets, written by hand in the links' formats."""
    texts, labels = _texts(400)
    folders = {name: root() / "inputs" / name for name in ("tokenizer", "tokens", "labelled_examples", "evaluation_sets")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    tokenizer = _tokenizer(folders["tokenizer"])
    _tokens(folders["tokens"], tokenizer, texts)
    ids = [f"{number:020x}" for number in range(len(texts))]
    splits = ["train"] * 280 + ["validation"] * 40 + ["test"] * 80
    for name, file, kept in (("labelled_examples", "train.parquet", {"train"}), ("evaluation_sets", "evaluation.parquet", {"validation", "test"})):
        rows = [row for row in zip(ids, texts, labels, splits, strict=True) if row[3] in kept]
        table = {column: [row[number] for row in rows] for number, column in enumerate(("doc_id", "text", "label", "split"))}
        pyarrow.parquet.write_table(pyarrow.table({**table, "domain": ["test"] * len(rows), "cluster": table["doc_id"]}), folders[name] / file)
        (folders[name] / "labels.json").write_text(json.dumps(LABELS))
    return {name: artifact(folder, name) for name, folder in folders.items()}


@functools.cache
def denoising_corpus() -> dict[str, Artifact]:
    """tokenizer and tokens again, with sentinels for the two spans of a block."""
    folders = {name: root() / "denoising" / name for name in ("tokenizer", "tokens")}
    for name, folder in folders.items():
        shutil.copytree(corpus()[name].directory, folder)
    encoder = Tokenizer.from_file(str(folders["tokenizer"] / "tokenizer.json"))
    encoder.add_special_tokens(sentinels(2))
    encoder.save(str(folders["tokenizer"] / "tokenizer.json"))
    layout = json.loads((folders["tokens"] / "layout.json").read_text())
    (folders["tokens"] / "layout.json").write_text(json.dumps({**layout, "vocabulary_size": encoder.get_vocab_size()}))
    return {name: artifact(folder, f"denoising-{name}") for name, folder in folders.items()}


def corpus_of(objective: str) -> dict[str, Artifact]:
    """What a pretraining with that objective reads."""
    return corpus() | (denoising_corpus() if objective == "span_denoising" else {})


@functools.cache
def pretrained(objective: str = "masked") -> Outcome:
    """The pretrained checkpoint, an encoder, a decoder or an encoder-decoder: one launch."""
    return _make(pretrained_checkpoint.LINK, PRETRAINING.model_copy(update={"objective": objective}), **corpus_of(objective))


@functools.cache
def finetuned() -> Outcome:
    """The finetuned model: one more launch."""
    return _make(finetuned_model.LINK, FINETUNING, pretrained_checkpoint=pretrained().artifact)


@functools.cache
def quantized() -> Outcome:
    """The quantized model."""
    return _make(quantized_model.LINK, quantized_model.QuantizedModelConfig(), finetuned_model=finetuned().artifact)


def _make(link: Link, config: Section, **inputs: Input) -> Outcome:
    every: dict[str, Input] = {**corpus(), "compute": COMPUTE, **inputs}
    given = {name: every[name] for name in link.inputs}
    return make(Store(root() / "data"), link, config, given, seed=1, launch=launch_quietly, progress=silent)


def _texts(count: int) -> tuple[list[str], list[str]]:
    rng = random.Random(0)
    labels = [LABELS[number % 2] for number in range(count)]
    telling = {"positive": GOOD, "negative": BAD}
    return ["".join(rng.choice(telling[label] if rng.random() < 0.4 else NEUTRAL) for _ in range(12)) for label in labels], labels


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *dict.fromkeys(GOOD + BAD + NEUTRAL)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.save_pretrained(folder)
    return fast


def _tokens(folder: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> None:
    stream = numpy.concatenate([tokenizer(text)["input_ids"] for text in texts]).astype("<u2")
    blocks = stream[: len(stream) // CONTEXT * CONTEXT].reshape(-1, CONTEXT)
    blocks.tofile(folder / "tokens.bin")
    layout = {"dtype": "uint16", "context": CONTEXT, "blocks": len(blocks), "train_blocks": len(blocks) - 10, "validation_blocks": 10}
    (folder / "layout.json").write_text(json.dumps({**layout, "padding_tokens": 0, "vocabulary_size": len(tokenizer)}))
