"""What happens between two steps of a training: agreed checkpoints, the kept best evaluation, and reports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, PipesContext, open_dagster_pipes
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm_assets.store.files import write_json
from llm_assets.training import checkpoints
from llm_assets.training.job import CANCEL, PREEMPTED, PROGRESS, TrainingJob

PIPES_INTERVAL = 5.0  # seconds between two lines in Dagster's log


class AgreedCheckpoints(TrainerCallback):
    """Saves a checkpoint when time is up or a SIGTERM came, on all ranks at the same step.

    SIGTERM reaches the ranks at different moments and their clocks differ, so each step ends with an all-reduce of two
    flags (0.1 ms on one host). SIGTERM with the launcher's cancel file beside the job ends the process at once.
    """

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self.preempted = False
        self._asked = False
        self._due = time.monotonic() + job.checkpoint_seconds
        signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, number: int, frame: object) -> None:
        if (self.job.scratch / CANCEL).exists():
            os._exit(128 + number)
        self._asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Agree on whether to save and whether to stop."""
        flags = torch.tensor([self._asked, time.monotonic() >= self._due], dtype=torch.int32, device=args.device)
        distributed.all_reduce(flags, op=distributed.ReduceOp.MAX)
        self.preempted, due = (bool(flag) for flag in flags.tolist())
        if state.global_step >= state.max_steps:  # the result itself follows; nothing is left to resume
            self.preempted = False
            return
        if self.preempted or due:
            control.should_save = True
        if self.preempted:
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Seal the checkpoint once all ranks have written it."""
        distributed.barrier()  # every rank has written its part
        if state.is_world_process_zero:
            checkpoints.seal(self.job.scratch / f"{checkpoints.PREFIX}{state.global_step}")
            if self.preempted:
                write_json(self.job.scratch / PREEMPTED, {"step": state.global_step})
        distributed.barrier()
        self._due = time.monotonic() + self.job.checkpoint_seconds


class BestEvaluation:
    """The weights of the evaluation with the highest score on validation (then the lowest loss), on the disk.

    The score is accuracy, micro F1 or the mean squared error taken negative, by the head (``training/heads.py: validation``);
    of conversations the loss taken negative; of replies by reward the mean reward.

    Weights first, then the file that names them, so that a kill between the two leaves the earlier best. No evaluation before the
    step ``earliest`` is kept.
    """

    def __init__(self, scratch: Path, earliest: int = 0) -> None:
        self.scratch = scratch
        self.earliest = earliest
        self.record = scratch / "best.json"

    @property
    def step(self) -> int:
        """The step whose weights are kept."""
        return int(self.read()["step"])

    @property
    def folder(self) -> Path:
        """The folder of the kept weights."""
        return self.scratch / f"best-{self.step}"

    def read(self) -> dict[str, Any]:
        """Step, score and loss of the kept evaluation."""
        found: dict[str, Any] = json.loads(self.record.read_text())
        return found

    def is_beaten_by(self, score: float, loss: float, step: int) -> bool:
        """Whether an evaluation is better than the one kept, which a resumed training may already have passed."""
        if step < self.earliest:
            return False
        if not self.record.exists():
            return True
        kept = self.read()
        return kept["step"] != step and (score, -loss) > (kept["score"], -kept["loss"])

    def keep(self, score: float, loss: float, step: int) -> None:
        """Name ``best-<step>``, already written, as the best, and delete the one before."""
        before = self.folder if self.record.exists() else None
        write_json(self.record, {"step": step, "score": score, "loss": loss})
        if before is not None and before != self.folder:
            shutil.rmtree(before, ignore_errors=True)


class Reports(TrainerCallback):
    """Rank 0 writes each logged step for the launcher, and every 5 s a line into Dagster's log where Pipes is open."""

    def __init__(self, job: TrainingJob) -> None:
        self.path = job.scratch / PROGRESS
        self.pipes: AbstractContextManager[PipesContext | None] = nullcontext()
        self._context: PipesContext | None = None
        self._started = time.monotonic()
        self._first_step = 0
        self._said = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock, and Pipes where Dagster offers it."""
        self._started, self._first_step = time.monotonic(), state.global_step
        if state.is_world_process_zero and DAGSTER_PIPES_CONTEXT_ENV_VAR in os.environ:
            self.pipes = open_dagster_pipes()
            self._context = self.pipes.__enter__()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close Pipes."""
        self.pipes.__exit__(None, None, None)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Report a logged step."""
        if not state.is_world_process_zero or not logs or "tokens_per_second" not in logs:
            return
        made = max(1, state.global_step - self._first_step)
        eta = (time.monotonic() - self._started) / made * (state.max_steps - state.global_step)
        values = {"loss": logs["loss"], "tokens_per_second": logs["tokens_per_second"], "eta_s": round(eta, 1)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, "total": state.max_steps, **values}) + "\n")
        if self._context is not None and time.monotonic() - self._said >= PIPES_INTERVAL:
            self._said = time.monotonic()
            speed = f"{values['tokens_per_second']:.0f} tokens/s"
            self._context.log.info(f"step {state.global_step}/{state.max_steps}, loss {values['loss']:.3f}, {speed}, {eta:.0f} s to go")
