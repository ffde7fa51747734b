"""AdaLoRA in the training loop: which directions of which matrix keep their place is decided while they are learnt.

Zhang et al. 2023, https://arxiv.org/abs/2303.10512. Of PEFT come the layers, the budget's cubic fall and the choice of directions; it asks
for a weight's gradient once the update is made, when ZeRO has cleared it. So each backward pass leaves a copy of the thin matrices'
gradients here as it makes them, and what is pruned is pruned in the optimizer's own copy of the weights, too, out of which ZeRO
would bring it back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param
from peft.tuners.adalora.layer import RankAllocator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm_assets.training import checkpoints

FILE = "ranks.safetensors"  # in a checkpoint, beside what DeepSpeed keeps
ORTHOGONALITY = (
    0.5  # what it costs that directions are not orthogonal; by PEFT's form, the mean of unsquared norms, and its weight; the paper sums squares
)
AVERAGES = ("exp_avg_ipt", "exp_avg_unc")  # PEFT's names for the running means of a weight's importance and of how much it sways


class Allocator(RankAllocator):
    """PEFT's allocator, fed with the gradients of all backward passes since the last update, summed, of all processes."""

    def __init__(self, model: torch.nn.Module, config: Any, adapter_name: str) -> None:
        super().__init__(model, config, adapter_name)  # type: ignore[no-untyped-call]  # PEFT's
        self.gradients: dict[str, torch.Tensor] = {}
        for name, parameter in thin(model):
            parameter.register_hook(partial(self._add, name))  # type: ignore[no-untyped-call]  # torch's

    def _add(self, name: str, gradient: torch.Tensor) -> None:
        self.gradients[name] = gradient.detach().float() + self.gradients.get(name, 0)

    def update_ipt(self, model: torch.nn.Module) -> None:
        """The running means of |weight x gradient| and of its distance from that mean (equations 9 to 11); the gradients are used up."""
        self._sum_over_processes()
        for name, parameter in thin(model):
            importance = (parameter.detach().float() * self.gradients.pop(name)).abs()
            mean = self.beta1 * self.exp_avg_ipt.get(name, 0) + (1 - self.beta1) * importance
            self.exp_avg_unc[name] = self.beta2 * self.exp_avg_unc.get(name, 0) + (1 - self.beta2) * (importance - mean).abs()
            self.exp_avg_ipt[name] = mean

    def _sum_over_processes(self) -> None:
        """In one exchange, so that every process prunes alike."""
        names = sorted(self.gradients)
        together = torch.cat([self.gradients[name].flatten() for name in names])
        distributed.all_reduce(together)
        parts = torch.split(together, [self.gradients[name].numel() for name in names])
        self.gradients = {name: part.view_as(self.gradients[name]) for name, part in zip(names, parts, strict=True)}


class Allocation(TrainerCallback):
    """Prunes ``model``, a ``PeftModel``, after each update, on every process alike, and keeps in checkpoints what it goes by."""

    def __init__(self, model: Any, scratch: Path) -> None:
        self.tuner = model.base_model
        self.name: str = self.tuner.trainable_adapter_name
        self.config = self.tuner.peft_config[self.name]
        self.allocator = Allocator(self.tuner.model, self.config, self.name)
        self.tuner.rankallocator = self.allocator
        self.scratch = scratch

    def penalty(self) -> torch.Tensor:
        """How far the directions are from orthogonal: the mean of |P Pᵀ - 1| over the thin matrices (equation 4), weighed."""
        rows = [weight if "lora_A" in name else weight.T for name, weight in thin(self.tuner.model) if "lora_E" not in name]
        distances = [torch.linalg.matrix_norm(row @ row.T - torch.eye(len(row), dtype=row.dtype, device=row.device)) for row in rows]
        return ORTHOGONALITY * torch.stack(distances).mean()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Go on as the checkpoint left it."""
        if state.global_step:
            self.read(self.scratch / f"{checkpoints.PREFIX}{state.global_step}")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Weigh the directions and prune to the update's budget."""
        self.tuner.update_and_allocate(state.global_step)
        self.allocator.gradients.clear()  # after the budget has settled nobody asks for them
        for name, parameter in thin(self.tuner.model):
            if "lora_E" in name and (kept := safe_get_full_fp32_param(parameter)) is not None:
                safe_set_full_fp32_param(parameter, kept * (parameter.detach() != 0))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write beside the checkpoint's other files; the callback that seals it comes after this one."""
        if state.is_world_process_zero:
            self.write(self.scratch / f"{checkpoints.PREFIX}{state.global_step}")

    def write(self, checkpoint: Path) -> None:
        """The running means and the directions that are left."""
        tensors = {f"{table}|{name}": tensor for table in AVERAGES for name, tensor in getattr(self.allocator, table).items()}
        save_file(tensors, checkpoint / FILE, {"pattern": json.dumps(self.config.rank_pattern)})

    def read(self, checkpoint: Path) -> None:
        """What ``write`` wrote."""
        device = next(self.tuner.model.parameters()).device
        with safe_open(checkpoint / FILE, framework="pt", device=str(device)) as file:
            for key in file.keys():  # noqa: SIM118  # no mapping
                table, name = key.split("|")
                getattr(self.allocator, table)[name] = file.get_tensor(key)
            self.config.rank_pattern = json.loads(file.metadata()["pattern"])


def thin(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The trained matrices beside the frozen ones: left and right directions (B, A), and how much of each (E)."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad and "lora_" in name)
