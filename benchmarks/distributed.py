"""Training over several processes: what ZeRO's stages and a second process cost, and whether a broken training ends where it should."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet

from benchmarks.material import artifact, bench, corpus, reviews
from benchmarks.result import Result
from llm_assets.links.tokenizer import TokenizerConfig, tokenizer
from llm_assets.links.tokens import TokensConfig, tokens
from llm_assets.store.progress import Progress, silent
from llm_assets.training.job import Masked, ModelShape, TrainingJob
from llm_assets.training.launch import WorkerFailedError, launch

CONTEXT, STEPS = 128, 30
ROUNDS = 3  # of one process and two, taking turns so that what else the machine does meets both alike; the fastest counts
BATCH = 32  # sequences an update, whatever the processes
SHARE, SAME, CLOSE = 0.9, 1e-4, 1e-3


def zero(preset: str, home: Path) -> Result:
    """Masked pretraining with ZeRO 0 to 3 on two processes: losses and tokens a second; and one process with both threads against two.

    The demo's model (192 wide, 3 layers) on the reviews, 32 blocks of 128 tokens an update, 30 updates; a speed is the median of the
    updates' own, the best of 3 rounds for one process and for two at ZeRO-1.
    """
    with tempfile.TemporaryDirectory() as temporary:
        training = Training(Path(temporary))
        stages = {stage: training.run(f"stage-{stage}", 2, zero_stage=stage) for stage in (0, 1, 2, 3)}
        rounds = [(training.run("one", 1, zero_stage=1), training.run("two", 2, zero_stage=1)) for _ in range(ROUNDS)]
    one, two = (max(run["speed"] for run in runs) for runs in zip(*rounds, strict=True))
    print(f"{'':<34}{'validation loss':>16}{'tokens/s':>12}")
    for stage, run in stages.items():
        print(f"{f'ZeRO-{stage}, two processes, one round':<34}{run['loss']:>16.6f}{run['speed']:>12,.0f}")
    print(f"{'ZeRO-1, one process, two threads':<34}{rounds[0][0]['loss']:>16.6f}{one:>12,.0f}")
    print(f"{'ZeRO-1, two processes':<34}{rounds[0][1]['loss']:>16.6f}{two:>12,.0f}")
    losses = [run["loss"] for run in stages.values()]
    spread, share = max(losses) - min(losses), two / one
    print(f"losses of the stages lie within {spread:.1e}")
    target = f"at least {SHARE}, losses within {SAME:g}"
    return Result("zero", round(share, 3), "of one process's speed, with two", target, share >= SHARE and spread <= SAME)


def resume(preset: str, home: Path) -> Result:
    """A training of two processes, killed half-way: its final loss resumed with two, and with one, against the uninterrupted one's.

    The demo's model and batch, 30 updates, a checkpoint after each; one worker gets SIGKILL, the launcher ends the other.
    """
    with tempfile.TemporaryDirectory() as temporary:
        training = Training(Path(temporary))
        whole = training.run("whole", 2, zero_stage=2)
        training.killed("two", STEPS // 2, zero_stage=2)
        shutil.copytree(training.folder / "two", training.folder / "one")
        again = {count: training.run(name, count, zero_stage=2) for count, name in ((2, "two"), (1, "one"))}
    print(f"{'uninterrupted, two processes':<34}{whole['loss']:>12.6f}")
    differences = {count: abs(run["loss"] - whole["loss"]) for count, run in again.items()}
    for count, run in again.items():
        start, shown = run["resumed_from"], f"resumed with {count} process{'es' * (count > 1)}"
        print(f"{shown:<34}{run['loss']:>12.6f}   from update {start}, {differences[count]:.1e} away")
    worst = max(differences.values())
    resumed = all(0 < run["resumed_from"] < STEPS for run in again.values())
    return Result("resume", worst, "nats from the uninterrupted final loss", f"<= {CLOSE:g}", worst <= CLOSE and resumed)


class Training:
    """The same training again and again, in folders of ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        texts = list(dict.fromkeys(reviews()))
        self.corpus = corpus(texts, folder / "clean_corpus")
        self.tokenizer, self.tokens = folder / "tokenizer", folder / "tokens"
        tokenizer(bench(self.tokenizer), TokenizerConfig(), self.corpus)
        tokens(bench(self.tokens), TokensConfig(context=CONTEXT), self.corpus, artifact("tokenizer", self.tokenizer))

    def run(self, name: str, processes: int, progress: Progress = silent, **settings: Any) -> dict[str, float]:
        """Train, or go on in the folder ``name``; returns its last validation loss, speed, and the update it went on from."""
        scratch = self.folder / name
        scratch.mkdir(exist_ok=True)
        job = TrainingJob(
            objective=Masked(tokens=self.tokens), tokenizer=self.tokenizer, output=scratch / "out", scratch=scratch, shape=ModelShape(),
            steps=STEPS, evaluate_every=STEPS, seed=17, learning_rate=2e-3, micro_batch=BATCH // 2, accumulation=2 // processes,
            **{"checkpoint_seconds": 1e9, **settings},
        )  # fmt: skip
        launch(job.write(scratch / "job.json"), processes, progress)
        curve = pyarrow.parquet.read_table(scratch / "out" / "curve.parquet").to_pylist()
        speeds = sorted(row["tokens_per_second"] for row in curve if row["tokens_per_second"])
        resumed = json.loads((scratch / "summary.json").read_text())["resumed_from"]
        return {"loss": curve[-1]["validation_loss"], "speed": speeds[len(speeds) // 2], "resumed_from": resumed}

    def killed(self, name: str, step: int, **settings: Any) -> None:
        """Train with two processes until one is killed after ``step``."""
        struck: list[float] = []

        def kill(done: float, total: float, unit: str, **values: float) -> None:
            if done >= step and not struck:
                struck.append(done)
                os.kill(max(int(path.name) for path in (self.folder / name / "workers").iterdir()), signal.SIGKILL)

        try:
            self.run(name, 2, kill, checkpoint_seconds=0, **settings)
        except WorkerFailedError:
            return
        raise AssertionError("the training ended before it was killed")
