"""The training loop: transformers' Trainer with a given order of samples, a token count and the best evaluation kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer

from llm_assets.training.callbacks import BestEvaluation


class Worker(Trainer):
    """transformers' Trainer with samples in a given order, a token count, and the best evaluation kept."""

    def __init__(self, *, best: BestEvaluation | None, padding: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.best = best
        self.padding = padding
        self.tokens = 0  # seen by this rank since the last log
        self.clock = time.monotonic()

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)  # type: ignore[arg-type]  # the dataset is already in the job's order

    def training_step(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], *rest: Any, **named: Any) -> torch.Tensor:
        """One forward and backward pass; counts its tokens, those of the other ranks taken to be as many."""
        tokens = int(inputs["input_ids"].ne(self.padding).sum())
        self.tokens += tokens
        self.state.num_input_tokens_seen += tokens * self.args.world_size  # kept in checkpoints, so a resumed training counts on
        loss: torch.Tensor = super().training_step(model, inputs, *rest, **named)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the speed since the last log."""
        if "loss" in logs:
            now = time.monotonic()
            logs["tokens_per_second"] = round(self.tokens * self.args.world_size / max(1e-6, now - self.clock), 1)
            self.tokens, self.clock = 0, now
        super().log(logs, start_time)

    def evaluate(self, *rest: Any, **named: Any) -> dict[str, float]:
        """Evaluate, and keep the weights if none before did better."""
        started = time.monotonic()
        metrics: dict[str, float] = super().evaluate(*rest, **named)
        self.clock += time.monotonic() - started  # evaluation is no training time
        if self.best is not None and self.best.is_beaten_by(metrics["eval_accuracy"], metrics["eval_loss"], self.state.global_step):
            self.save_weights(self.best.scratch / f"best-{self.state.global_step}")
            if self.is_world_process_zero():
                self.best.keep(metrics["eval_accuracy"], metrics["eval_loss"], self.state.global_step)
        self.accelerator.wait_for_everyone()
        return metrics

    def save_weights(self, folder: Path) -> None:
        """config.json and model.safetensors, gathered from all ranks where ZeRO-3 spread them."""
        weights = self.accelerator.get_state_dict(self.deepspeed)
        if self.is_world_process_zero():
            self.accelerator.unwrap_model(self.model).save_pretrained(folder, state_dict=weights)
