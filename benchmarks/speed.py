"""The training worker's speed beside transformers' own Trainer: same model, same data, same cores, taking turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from benchmarks.distributed import CONTEXT
from benchmarks.material import artifact, bench, corpus, labelled
from benchmarks.result import Result
from benchmarks.timing import cores, timed
from llm_assets.corpus.cleaning import clean_texts
from llm_assets.links.tokenizer import TokenizerConfig, tokenizer
from llm_assets.links.tokens import TokensConfig, tokens
from llm_assets.store.progress import silent
from llm_assets.training.job import Classification, Masked, ModelShape, TrainingJob
from llm_assets.training.launch import launch

SHAPE = ModelShape(hidden=256, layers=6, heads=4, intermediate=384)  # 3.3M parameters in the layers
MASKED = 0.3  # share of tokens to predict
STEPS, BATCH = 30, 32  # updates, and sequences in each
MATRIX = 2048  # rows and columns
ROUNDS = 2  # in turns; the fastest counts
STOCK, STOCK_BEST, OF_PEAK, USEFUL = 1.7, 1.1, 0.65, 2.0  # targets


def pretraining(preset: str, home: Path) -> Result:
    """Masked pretraining in tokens a second against transformers' run_mlm: its defaults, and with sparse prediction; and the share of the peak.

    A ModernBERT with 3.3M parameters in its layers on the reviews, 32 blocks of 128 tokens an update, 30% masked. run_mlm's Trainer with its
    collator and optimizer (--per_device_train_batch_size 32 --max_seq_length 128 --mlm_probability 0.3 --use_cpu), one process over all
    cores; ours two processes under ZeRO-1. Matrix products executed: 6 operations a weight and token in the layers, attention's own, and the
    head on masked tokens, over the measured speed of torch's product of two matrices of 2048 rows on all cores.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = _Folder(Path(temporary))
        runs = []
        for number in range(ROUNDS):
            ours = folder.ours(f"ours-{number}", Masked(tokens=folder.tokens, mask_probability=MASKED), zero_stage=1)
            stock = folder.stock("masked", folder.tokens, sparse_prediction=False)
            runs.append((ours, stock, folder.stock("masked", folder.tokens, sparse_prediction=True)))
        fastest = peak()
    ours, stock, sparse = (max(speeds) for speeds in zip(*runs, strict=True))
    share = ours * _operations(folder.vocabulary) / 1e9 / fastest
    for name, speed in (("run_mlm, its defaults", stock), ("run_mlm, sparse prediction", sparse), ("ours", ours)):
        print(f"{name:<30}{speed:>10,.0f} tokens/s")
    print(f"{_operations(folder.vocabulary) / 1e6:.1f} MFLOP a token in matrix products: {share:.2f} of {fastest:.0f} GFLOP/s")
    holds = ours / stock >= STOCK and ours / sparse >= STOCK_BEST and share >= OF_PEAK
    target = f"at least {STOCK}, {STOCK_BEST} times with sparse prediction ({ours / sparse:.2f}), {OF_PEAK} of the peak ({share:.2f})"
    return Result("pretraining", round(ours / stock, 2), "times run_mlm", target, holds)


def finetuning(preset: str, home: Path) -> Result:
    """Finetuning in useful tokens a second (no padding) against transformers' Trainer, which pads each batch to its longest text.

    The same model with a classifier, the labelled reviews, 32 texts an update, at most 128 tokens each.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = _Folder(Path(temporary))
        folder.ours("start", Masked(tokens=folder.tokens), steps=1)
        objective = Classification(train=folder.examples, evaluation=folder.examples, labels=("negative", "positive"), dropout=0)
        runs = []
        for number in range(ROUNDS):
            ours = folder.ours(f"ours-{number}", objective, start_from=folder.folder / "start" / "out", zero_stage=2, steps=5 * STEPS)
            runs.append((ours, folder.stock("classification", folder.examples, sparse_prediction=False, steps=5 * STEPS)))
    ours, stock = (max(speeds) for speeds in zip(*runs, strict=True))
    print(f"{'Trainer, padding to the longest':<34}{stock:>10,.0f} useful tokens/s")
    print(f"{'ours':<34}{ours:>10,.0f} useful tokens/s")
    return Result("finetuning", round(ours / stock, 2), "times the Trainer", f"at least {USEFUL}", ours / stock >= USEFUL)


def peak() -> float:
    """Billions of operations a second of a matrix product in torch, which trains, over all cores: numpy's library may be another, and slower."""
    import torch

    torch.set_num_threads(cores())
    matrix = torch.ones(MATRIX, MATRIX)
    fastest = min(timed(lambda: matrix @ matrix)[1] for _ in range(20))
    return 2 * MATRIX**3 / fastest / 1e9


def _operations(vocabulary: int) -> float:
    """Floating-point operations of the matrix products that one token takes, forward and backward."""
    hidden = SHAPE.hidden
    layer = 4 * hidden * hidden + 3 * hidden * SHAPE.intermediate
    attention = 2 * hidden * CONTEXT  # scores and their weighted sum
    head = MASKED * (hidden * hidden + hidden * vocabulary)
    return 6 * (SHAPE.layers * (layer + attention) + head)


class _Folder:
    """The reviews as packed tokens and as labelled examples, and trainings over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        raw = labelled()
        texts = clean_texts([text for text, _ in raw]).texts
        known = dict(zip(texts, (label for _, label in raw), strict=True))
        self.tokenizer, self.tokens = folder / "tokenizer", folder / "tokens"
        self.examples = folder / "examples.parquet"
        documents = corpus(list(known), folder / "clean_corpus")
        tokenizer(bench(self.tokenizer), TokenizerConfig(), documents)
        tokens(bench(self.tokens), TokensConfig(context=CONTEXT), documents, artifact("tokenizer", self.tokenizer))
        self.vocabulary: int = json.loads((self.tokens / "layout.json").read_text())["vocabulary_size"]
        columns = {"text": list(known), "label": list(known.values()), "split": ["validation"] * 64 + ["train"] * (len(known) - 64)}
        pyarrow.parquet.write_table(pyarrow.table(columns), self.examples)

    def ours(self, name: str, objective: Masked | Classification, steps: int = STEPS, **settings: Any) -> float:
        """Tokens a second of the training worker in two processes: the median of its updates'."""
        scratch = self.folder / name
        scratch.mkdir()
        job = TrainingJob(
            objective=objective, tokenizer=self.tokenizer, output=scratch / "out", scratch=scratch,
            shape=SHAPE if isinstance(objective, Masked) else None, steps=steps, evaluate_every=steps, seed=17, learning_rate=1e-3,
            micro_batch=BATCH // 2, checkpoint_seconds=1e9, **settings,
        )  # fmt: skip
        launch(job.write(scratch / "job.json"), 2, silent)
        curve = pyarrow.parquet.read_table(scratch / "out" / "curve.parquet").to_pylist()
        speeds = sorted(row["tokens_per_second"] for row in curve if row["tokens_per_second"])
        return float(speeds[len(speeds) // 2])

    def stock(self, objective: str, data: Path, sparse_prediction: bool, steps: int = STEPS) -> float:
        """Tokens a second of transformers' Trainer in one process over all cores."""
        settings = {
            "objective": objective, "data": str(data), "tokenizer": str(self.tokenizer), "shape": SHAPE.model_dump(), "steps": steps,
            "batch": BATCH, "sparse_prediction": sparse_prediction, "scratch": str(self.folder / "stock"),
        }  # fmt: skip
        path = self.folder / "stock.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        environment = {**os.environ, "OMP_NUM_THREADS": str(cores())}
        printed = subprocess.run([sys.executable, "-m", "benchmarks.stock", str(path)], env=environment, capture_output=True, text=True, check=True)
        return float(json.loads(printed.stdout.strip().splitlines()[-1])["tokens_per_second"])
