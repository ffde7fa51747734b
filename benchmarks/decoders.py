"""Pretraining of decoders: the worker's speed beside transformers' run_clm, and bits per byte beside a plain GPT after the same time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy
import pyarrow.parquet

from benchmarks.material import artifact, bench, corpus, news, reviews
from benchmarks.result import Result
from benchmarks.speed import peak
from benchmarks.timing import cores
from llm_assets.corpus.cleaning import clean_texts
from llm_assets.links.tokenizer import TokenizerConfig, load, tokenizer
from llm_assets.links.tokens import TokensConfig, packed_blocks, tokens
from llm_assets.store.progress import silent
from llm_assets.training.decoders import DecoderShape
from llm_assets.training.initialisation import bigram_start
from llm_assets.training.job import Causal, TrainingJob
from llm_assets.training.launch import launch
from llm_assets.training.scaling import derive

VOCABULARY = 8192
BLOCK, BATCH = 1024, 8  # run_clm's defaults: --block_size, --per_device_train_batch_size
SHORT = 256  # a second block size, at which attention weighs less; as many tokens an update
STEPS = 15
ROUNDS = 2  # in turns; the fastest counts
FASTER, OF_PEAK, FEWER_BITS = 1.3, 0.65, 0.97  # targets
SECONDS = 300.0  # of training on two cores
TRIAL = 12  # updates by which the speed is measured that decides how many the time pays for
KEPT = 0.97  # share of the time that is planned for: speed varies


def causal(preset: str, home: Path) -> Result:
    """Causal pretraining in tokens a second against transformers' run_clm on the same model, data and cores; and the share of the peak.

    A Llama of the size small (4 layers of 256, 8,192 tokens) on Chinese news and reviews, 8,192 tokens an update. run_clm's Trainer with its
    collator, optimizer and loss (--block_size 1024 --per_device_train_batch_size 8, its defaults, --use_cpu), one process over all cores, whose
    attention runs across the documents of a block; ours two processes under ZeRO-1, attention inside each document. A second line: the same in
    blocks of 256. Matrix products executed: 6 operations a weight and token in the layers and in the head on predicted tokens, and attention's own
    inside documents, over the measured speed of torch's product of two matrices of 2048 rows on all cores.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Decoders(Path(temporary), (BLOCK, SHORT))
        runs = {
            context: [(folder.ours(f"{context}-{number}", context), folder.stock(context)) for number in range(ROUNDS)] for context in (BLOCK, SHORT)
        }
        operations, fastest = folder.operations(BLOCK, _shape("llama", "small")), peak()
    found = {context: [max(speeds) for speeds in zip(*pairs, strict=True)] for context, pairs in runs.items()}
    for context, (ours, stock) in found.items():
        print(f"blocks of {context:>5}: run_clm {stock:>8,.0f} tokens/s, ours {ours:>8,.0f} tokens/s, {ours / stock:.2f} times")
    ours, stock = found[BLOCK]
    share = ours * operations / 1e9 / fastest
    print(f"{operations / 1e6:.1f} MFLOP a token in matrix products: {share:.2f} of {fastest:.0f} GFLOP/s")
    target = f"at least {FASTER}, {OF_PEAK} of the peak ({share:.2f})"
    return Result("causal", round(ours / stock, 2), "times run_clm", target, ours / stock >= FASTER and share >= OF_PEAK)


def bits(preset: str, home: Path) -> Result:
    """Bits per byte of held-out text after 5 minutes of training on two cores, against a plain GPT of nanochat's kind on the same tokens.

    Chinese news and reviews, byte-level pairs of 8,192 entries. Ours: a Qwen3 of the size micro through the training worker, Muon. The plain one
    (benchmarks/plain_gpt.py): rotary positions, norms of queries and keys, squared ReLU, untied head, no biases, Muon and AdamW at nanochat's
    rates, blocks as they come. Both are counted over the same held-out labels; of both the time in the training loop counts, of ours the start
    of the embeddings too.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Decoders(Path(temporary), (SHORT,))
        ours, seconds = folder.in_time(SHORT, SECONDS)
        plain = folder.plain(SHORT, SECONDS)
    ratio = ours["bits_per_byte"] / plain["bits_per_byte"]
    for name, run, took in (("plain GPT", plain, plain["seconds"]), ("ours", ours, seconds)):
        print(f"{name:<12}{run['bits_per_byte']:>8.4f} bits a byte, {run['tokens']:>12,.0f} tokens in {took:.0f} s")
    holds = ratio <= FEWER_BITS and seconds <= 1.02 * SECONDS
    return Result("bits", round(ratio, 3), "of the plain GPT's bits per byte", f"at most {FEWER_BITS}", holds)


class Decoders:
    """News and reviews as packed tokens of a byte-level vocabulary, in blocks of each of ``contexts``, and trainings over them."""

    def __init__(self, folder: Path, contexts: tuple[int, ...]) -> None:
        self.folder = folder
        texts = list(dict.fromkeys(clean_texts([*news(), *reviews()]).texts))
        documents = corpus(texts, folder / "clean_corpus")
        self.tokenizer = folder / "tokenizer"
        settings = TokenizerConfig(kind="byte_bpe", vocabulary=VOCABULARY, training_characters=2_000_000)
        tokenizer(bench(self.tokenizer), settings, documents)
        self.opening: int = load(self.tokenizer).token_to_id("[CLS]")
        for context in contexts:
            tokens(bench(self.tokens(context)), TokensConfig(context=context), documents, artifact("tokenizer", self.tokenizer))

    def tokens(self, context: int) -> Path:
        """The folder of blocks so long."""
        return self.folder / f"tokens-{context}"

    def ours(self, name: str, context: int) -> float:
        """Tokens a second of the training worker in two processes: the median of its updates'."""
        shape = _shape("llama", "small")
        job = self._job(name, context, shape, STEPS, micro_batch=BLOCK * BATCH // context // 2, learning_rate=1e-3, zero_stage=1)
        launch(job.write(job.scratch / "job.json"), 2, silent)
        return speed(job)

    def in_time(self, context: int, seconds: float) -> tuple[dict[str, float], float]:
        """The last evaluation of a training that so many seconds pay for, and the seconds that its updates took."""
        rules = derive("micro", 2, {})
        layout, started = json.loads((self.tokens(context) / "layout.json").read_text()), time.perf_counter()
        shape = _shape("qwen3", "micro").model_copy(update={"tied": False})
        stream = packed_blocks(artifact("tokens", self.tokens(context)))[: layout["train_blocks"]].reshape(-1)
        for name, weights in zip(("embeddings", "head"), bigram_start(stream, VOCABULARY, shape.hidden, self.opening, 17), strict=True):
            numpy.save(self.folder / f"{name}.npy", weights)
        seconds -= (counted := time.perf_counter() - started)
        settings: dict[str, Any] = {"micro_batch": 8, "learning_rate": rules["learning_rate"].value, "warmup": 0.02, "beta2": 0.98}
        settings |= {"optimizer": "muon", "zero_stage": 0}
        settings |= {name: self.folder / f"{name}.npy" for name in ("embeddings", "head")}
        trial = self._job("trial", context, shape, TRIAL, **settings)
        launch(trial.write(trial.scratch / "job.json"), 2, silent)
        batch = 2 * settings["micro_batch"] * context
        job = self._job("whole", context, shape, max(1, int(KEPT * seconds * speed(trial) / batch)), **settings)
        launch(job.write(job.scratch / "job.json"), 2, silent)
        curve = pyarrow.parquet.read_table(job.output / "curve.parquet").to_pylist()
        took = _seconds(curve, batch) + counted
        return {"bits_per_byte": curve[-1]["validation_bits_per_byte"], "tokens": float(job.steps * batch)}, took

    def plain(self, context: int, seconds: float) -> dict[str, float]:
        """What the plain GPT says of itself after so many seconds on all cores."""
        settings = {
            "tokens": str(self.tokens(context)),
            "tokenizer": str(self.tokenizer),
            "layers": _shape("qwen3", "micro").layers,
            "seconds": seconds,
        }
        return self._said("benchmarks.plain_gpt", settings)

    def stock(self, context: int) -> float:
        """Tokens a second of transformers' Trainer in one process over all cores."""
        settings = {
            "objective": "causal", "data": str(self.tokens(context)), "tokenizer": str(self.tokenizer),
            "shape": _shape("llama", "small").model_dump(), "steps": STEPS, "batch": BLOCK * BATCH // context, "scratch": str(self.folder / "stock"),
        }  # fmt: skip
        return self._said("benchmarks.stock", settings)["tokens_per_second"]

    def operations(self, context: int, shape: DecoderShape) -> float:
        """Floating-point operations of the matrix products that one token takes in a decoder, forward and backward, in blocks so long."""
        blocks = packed_blocks(artifact("tokens", self.tokens(context)))
        first = blocks == self.opening
        first[:, 0] = True
        lengths = numpy.diff(numpy.flatnonzero(first), append=first.size)
        attended = float((lengths.astype(float) ** 2).sum() / lengths.sum())  # of a token's document, half of which it looks at
        predicted = 1 - len(lengths) / first.size
        return 6 * (shape.layers * (shape.layer_parameters + shape.hidden * attended) + predicted * shape.hidden * VOCABULARY)

    def _job(self, name: str, context: int, shape: DecoderShape, steps: int, **settings: Any) -> TrainingJob:
        scratch = self.folder / name
        scratch.mkdir()
        return TrainingJob(
            objective=Causal(tokens=self.tokens(context)), tokenizer=self.tokenizer, output=scratch / "out", scratch=scratch, shape=shape,
            steps=steps, evaluate_every=steps, seed=17, checkpoint_seconds=1e9, **settings,
        )  # fmt: skip

    def _said(self, module: str, settings: dict[str, Any]) -> dict[str, float]:
        """The last line that a benchmark's other half prints, in a process of its own over all cores."""
        path = self.folder / "settings.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        environment = {**os.environ, "OMP_NUM_THREADS": str(cores())}
        printed = subprocess.run([sys.executable, "-m", module, str(path)], env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found: dict[str, float] = json.loads(printed.stdout.strip().splitlines()[-1])
        return found


def _shape(architecture: str, size: Any) -> DecoderShape:
    found = {name: entry.value for name, entry in derive(size, 2, {}).items() if name in DecoderShape.model_fields}
    return DecoderShape.model_validate({"architecture": architecture, **found})


def speed(job: TrainingJob) -> float:
    """Tokens a second of a training that has ended: the median of its updates'."""
    curve = pyarrow.parquet.read_table(job.output / "curve.parquet").to_pylist()
    speeds = sorted(row["tokens_per_second"] for row in curve if row["tokens_per_second"])
    return float(speeds[len(speeds) // 2])


def _seconds(curve: list[dict[str, Any]], batch: int) -> float:
    """What all updates took: each logged row's speed is that since the row before."""
    seconds, before = 0.0, 0
    for row in curve:
        if row["tokens_per_second"]:
            seconds += (row["step"] - before) * batch / row["tokens_per_second"]
            before = row["step"]
    return seconds
