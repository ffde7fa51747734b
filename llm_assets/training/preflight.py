"""What is decided and refused before a training is launched: its devices, whether its weights are whole, and whether it fits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llm_assets.training import memory
from llm_assets.training.devices import DeviceError, Software, decide
from llm_assets.training.job import Classification, Packed, Preference, Rewarded, TrainingJob

COMPILERS = ("g++", "clang++", "c++")


@dataclass(frozen=True)
class Preflight:
    """A job that may be launched, and what is known of it."""

    job: TrainingJob  # with its hardware settings
    processes: int
    estimate: memory.Estimate | None  # of each process; None for an architecture without a stated one
    memory: int  # bytes a process may have

    def derived(self) -> dict[str, tuple[Any, str]]:
        """Every value that follows from the settings, with its reason."""
        job, hardware = self.job, self.job.hardware
        found: dict[str, tuple[Any, str]] = {name: (choice.value, choice.reason) for name, choice in hardware}
        batch = job.micro_batch * job.accumulation * self.processes
        found["batch"] = (batch, f"micro_batch {job.micro_batch} x accumulation {job.accumulation} x processes {self.processes}: sequences an update")
        found["warmup_steps"] = (int(job.warmup * job.steps), f"warmup {job.warmup:g} of {job.steps} steps, whole ones")
        if job.schedule == "warmup_stable_decay":
            found["decay_steps"] = (max(1, int(job.decay * job.steps)), f"decay {job.decay:g} of {job.steps} steps, whole ones and at least one")
        found["process_memory_bytes"] = (self.memory, "a GPU's own memory, or this process's share of the host's, from the compute record")
        if self.estimate is not None:
            found["memory_estimate_bytes"] = (self.estimate.total, "the sum of the parts below; formulas in docs/methods.md")
            found |= {f"memory_{name}_bytes": (size, "part of the estimate") for name, size in asdict(self.estimate).items()}
        return found


def preflight(job: TrainingJob, processes: int, devices: Sequence[Mapping[str, Any]], software: Software | None = None) -> Preflight:
    """The job with its hardware settings. No process is started for it and torch is not imported.

    Raises ``DeviceError`` where the devices asked for, or a compiler, are not there, ``WeightsError`` where a shard of the weights is missing or
    cut, ``MemoryRefusedError`` where the training cannot fit, naming the smallest change with which it would.
    """
    packed = not isinstance(job.objective, Classification | Preference | Rewarded)
    offload = job.offload_optimizer == "cpu"
    asked = {"packed": packed, "offload_optimizer": offload, "whole_matrices": job.optimizer == "muon"}
    hardware = decide(job.device, processes, devices, software or Software.installed(), **asked)
    job = job.model_copy(update={"hardware": hardware})
    if hardware.device.value == "cpu" and "cpu" in (job.offload_optimizer, job.offload_parameters):
        raise ValueError(
            "offload_optimizer or offload_parameters: cpu moves a GPU's states to host memory, and this training runs on a CPU "
            f"({hardware.device.reason}): set both to none"
        )
    if job.torch_compile and not any(map(shutil.which, COMPILERS)):
        raise DeviceError(f"torch_compile: true wants a C++ compiler; there is no {' or '.join(COMPILERS)}. Remedy: install one, or set false")
    kind = hardware.device.value
    available = memory.memory_of(next(device for device in devices if device["kind"] == kind), processes)
    model, length = _model(job)
    estimate = None if model is None else memory.refuse_too_large(job, processes, model, length, available)
    return Preflight(job, processes, estimate, available)


def _model(job: TrainingJob) -> tuple[memory.Dimensions | None, int]:
    """The model's dimensions and the length of its sequences in tokens."""
    if isinstance(job.objective, Packed):
        layout = json.loads((job.objective.tokens / "layout.json").read_text(encoding="utf-8"))
        length, vocabulary = int(layout["context"]), int(layout["vocabulary_size"])
        if job.start_from is None and job.shape is not None:
            return memory.new(job.shape, vocabulary), length
    else:
        length = job.objective.max_length
    return (None if job.start_from is None else memory.saved_model(job.start_from)), length
