"""The training loop: transformers' Trainer with a given order of samples, a token count and the best evaluation kept."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from llm_assets.store.files import write_json
from llm_assets.training import adapters, repartition, states
from llm_assets.training.callbacks import BestEvaluation
from llm_assets.training.faults import refuse
from llm_assets.training.heads import IGNORED
from llm_assets.training.job import Classification, Preference, TrainingJob
from llm_assets.training.muon import Muon


class Worker(Trainer):
    """transformers' Trainer with samples in a given order, a token count, and the best evaluation kept."""

    def __init__(
        self,
        *,
        job: TrainingJob,
        best: BestEvaluation | None,
        padding: int,
        bytes_of_tokens: torch.Tensor | None = None,
        penalty: Callable[[], torch.Tensor] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.penalty = penalty  # of the weights alone: learnt from, and no part of the loss that is shown
        self.bytes_of_tokens = bytes_of_tokens  # int64 [tokens]; given, evaluations state bits per byte
        self.job = job
        self.best = best
        self.padding = padding
        self.tokens = 0  # seen by this rank since the last log
        self.clock = time.monotonic()
        self.passes = 0  # forward passes made of the present update

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Muon; every other optimizer is made by DeepSpeed from its configuration, and transformers keeps its place."""
        if self.job.optimizer != "muon" or self.optimizer is not None:
            found: torch.optim.Optimizer = super().create_optimizer(model)
            return found
        trained = self.model if model is None else model
        betas = (self.job.beta1, self.job.beta2)
        self.optimizer = Muon(trained.named_parameters(), self.job.learning_rate, betas, self.job.epsilon, self.job.weight_decay)  # type: ignore[union-attr]
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)  # type: ignore[arg-type]  # the dataset is already in the job's order

    def training_step(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], *rest: Any, **named: Any) -> torch.Tensor:
        """One forward and backward pass; counts its tokens, those of the other ranks taken to be as many.

        The update follows within it, at the last pass. Raises ``DivergedError`` for a gradient that is no number, which leaves
        no trace on the disk: checkpoints are written after this.
        """
        tokens = sum(int(ids.ne(self.padding).sum()) for name, ids in inputs.items() if name.endswith("input_ids"))  # preference has several
        self.tokens += tokens
        self.state.num_input_tokens_seen += tokens * self.args.world_size  # kept in checkpoints, so a resumed training counts on
        loss: torch.Tensor = super().training_step(model, inputs, *rest, **named)
        self.passes += 1
        if self.accelerator.sync_gradients:
            norm = self.deepspeed.get_global_grad_norm()  # type: ignore[attr-defined]  # the engine, once training has begun
            refuse(self.job, "gradient norm", float(0.0 if norm is None else norm), self.state.global_step + 1, self.rows(range(self.passes)))
            self.passes = 0
        return loss

    def _prepare_input(self, data: Any) -> Any:
        """A batch on the device as it was made: transformers would round its float32 to bfloat16, targets of a regression and what a reference
        says of replies with it. What a model reads are whole numbers, and masks.
        """
        return send_to_device(data, self.args.device)

    def compute_loss(self, model: torch.nn.Module, *rest: Any, **named: Any) -> Any:
        """The loss; one that is no number raises ``DivergedError`` before anything is learnt from it."""
        found = super().compute_loss(model, *rest, **named)
        if model.training:
            loss = found[0] if isinstance(found, tuple) else found
            refuse(self.job, "loss", float(loss.detach()), self.state.global_step + 1, self.rows([self.passes]))
            if self.penalty is not None:
                penalty = self.penalty()
                found = loss + (penalty - penalty.detach()) / self.args.gradient_accumulation_steps  # whose passes are summed, and processes averaged
        return found

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """transformers' preparation; a checkpoint in another layout than this run's is restored by ``repartition``, not by DeepSpeed."""
        checkpoint = None if resume_from_checkpoint is None else Path(resume_from_checkpoint)
        own = states.Layout.of(self.job.zero_stage, self.args.world_size, self.job.hardware.precision.value == "bfloat16")
        same = checkpoint is None or states.layout(checkpoint) == own
        native = resume_from_checkpoint if same else None
        prepared = super()._prepare_for_training(max_steps, train_dataloader, native)  # type: ignore[no-untyped-call]
        if checkpoint is not None and not same:
            repartition.restore(self.deepspeed, states.read(checkpoint))
        return prepared

    def use_attention(self, implementation: str) -> None:
        """Compute attention with flash attention where that is chosen and the architecture has it; all else is transformers' own choice."""
        if implementation == "flash_attention_2" and getattr(self.model, "_supports_flash_attn", False):
            self.model.set_attn_implementation(implementation)  # type: ignore[union-attr, operator]  # a transformers model, as it says

    def rows(self, passes: Iterable[int]) -> list[int]:
        """The rows of the training data that this process reads in forward passes of the present update.

        Each process reads every so-manieth batch of the order, as accelerate shares them out.
        """
        size, made = self.args.per_device_train_batch_size, self.state.global_step * self.args.gradient_accumulation_steps
        first = [((made + number) * self.args.world_size + self.args.process_index) * size for number in passes]
        order = self.train_dataset.order  # type: ignore[union-attr]  # of Blocks, Order, Texts and PackedConversations
        found = [int(row) for start in first for row in order[start : start + size]]
        members = getattr(self.train_dataset, "members", None)  # of packed rows: those in each block
        return found if members is None else [row for block in found for row in members[block]]

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
        score = metrics.get("eval_score", -metrics["eval_loss"])
        if self.best is not None and self.best.is_beaten_by(score, metrics["eval_loss"], self.state.global_step):
            self.save_weights(self.best.scratch / f"best-{self.state.global_step}")
            if self.is_world_process_zero():
                self.best.keep(score, metrics["eval_loss"], self.state.global_step)
        self.accelerator.wait_for_everyone()
        return metrics

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Of packed blocks the exact mean loss a predicted token, whatever the number of processes; and bits per byte.

        Bits per byte are the predicted tokens' loss in bits over the bytes of text that they write (closing tokens write none).

        transformers' loop divides a batch's loss by the masked tokens of all ranks and then drops the ranks that only fill up: with
        a last batch of 10 blocks and two ranks it gave 2.86 where the mean is 3.08. Here each rank sums over its own batches.
        """
        if isinstance(self.job.objective, Classification | Preference):
            return super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        dataset, size, world = dataloader.dataset, self.args.per_device_eval_batch_size, self.args.world_size
        starts = range(0, len(dataset), size)
        sums = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        self.model_wrapped.eval()
        for first in range(0, len(starts), world):  # as many rounds on every rank, since ZeRO-3 gathers weights in each
            number = first + self.args.process_index
            start = starts[min(number, len(starts) - 1)]
            batch = self._prepare_inputs(self.data_collator([dataset[place] for place in range(start, min(start + size, len(dataset)))]))
            with torch.no_grad():
                loss = self.model_wrapped(**batch).loss
            labels = batch["labels"][batch["labels"] != IGNORED]
            if number < len(starts) and len(labels):
                written = 0 if self.bytes_of_tokens is None else int(self.bytes_of_tokens[labels.cpu()].sum())
                sums += torch.tensor([float(loss) * len(labels), len(labels), written], dtype=sums.dtype, device=sums.device)
        torch.distributed.all_reduce(sums)
        nats, count, written = sums.tolist()
        found = {f"{metric_key_prefix}_loss": nats / count}
        if self.bytes_of_tokens is not None:
            found[f"{metric_key_prefix}_bits_per_byte"] = nats / math.log(2) / written
        return EvalLoopOutput(None, None, found, len(dataset))  # type: ignore[arg-type]  # nothing is predicted

    def save_weights(self, folder: Path) -> None:
        """config.json and model.safetensors, gathered from all ranks where ZeRO-3 spread them; of an adapter its folder alone.

        In float32 whatever they were trained in: what reads them next, rounds them or goes on from them may be a CPU, whose ONNX Runtime has
        no product in bfloat16.
        """
        gathered = self.accelerator.get_state_dict(self.deepspeed)
        if not self.is_world_process_zero():
            return
        weights = {name: tensor.cpu().float() for name, tensor in gathered.items()}
        model = self.accelerator.unwrap_model(self.model)
        if adapters.used(self.job.objective):
            adapters.save(model, folder, weights)
        else:
            model.save_pretrained(folder, state_dict=weights)
            if self.job.hardware.precision.value != "float32":  # else it says so already
                config = folder / "config.json"
                write_json(config, json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"})
