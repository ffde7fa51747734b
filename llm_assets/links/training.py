"""Running a link's training job: checked before its processes start, and what was derived for it recorded with the result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from llm_assets.links import pages, plots
from llm_assets.links.link import Bench, Section
from llm_assets.store.files import write_json
from llm_assets.training.job import SUMMARY, Optimization, TrainingJob
from llm_assets.training.preflight import Preflight, preflight

PLACEMENT = (  # keys that say how the work is laid out over devices: the result is the same up to rounding
    "micro_batch",
    "accumulation",
    "processes",
    "zero_stage",
    "offload_optimizer",
    "offload_parameters",
    "activation_checkpointing",
    "torch_compile",
    "device",
    "checkpoint_seconds",
)
RECORD = "training.json"  # in the artifact: DeepSpeed's configuration as it ran, and every derived value with its reason


class TrainingSection(Section, Optimization):
    """The section of a link that trains."""

    processes: int = Field(2, ge=1, description="training processes, one a device (CPU: share the cores)")

    @property
    def batch(self) -> int:
        """Sequences in one update, over all processes."""
        return self.micro_batch * self.accumulation * self.processes

    def recipe(self) -> dict[str, Any]:
        """All but how the work is laid out; of that, the batch alone decides what is learnt.

        So a machine with one device goes on from what two began: ``processes: 1`` with twice the ``accumulation``.
        """
        return {name: value for name, value in super().recipe().items() if name not in PLACEMENT} | {"batch": self.batch}


class TeachingSection(TrainingSection):
    """The section of a link that goes over its examples a number of times."""

    epochs: float = Field(1.0, gt=0, description="passes over the examples to train on")
    max_steps: int = Field(0, ge=0, description="optimizer updates at most; 0 sets no limit")
    evaluations_per_epoch: int = Field(2, ge=1, description="on the validation split; the weights of the best one are kept")

    def updates(self, samples: int, epochs: float | None = None) -> dict[str, int]:
        """How many updates the passes over ``samples`` take, or so many other ones, and how many lie between two evaluations."""
        an_epoch = max(1, samples // self.batch)
        steps = max(1, round((epochs or self.epochs) * an_epoch))
        steps = min(steps, self.max_steps) if self.max_steps else steps
        return {"steps": steps, "evaluate_every": math.ceil(min(steps, an_epoch) / self.evaluations_per_epoch)}


def train(bench: Bench, job: TrainingJob, processes: int, compute: Mapping[str, Any], derived: Mapping[str, tuple[Any, str]] = {}) -> dict[str, Any]:
    """Launch the job in ``processes`` processes; returns the worker's figures, with the memory foreseen beside the memory measured.

    Writes ``training.json`` and the page ``training`` into the artifact, ``derived`` values of the link's own with their reasons
    among them. Raises what ``preflight`` raises before any process starts, and ``WorkerFailedError`` after.
    """
    flight = preflight(job, processes, compute["devices"])
    bench.launch(flight.job.write(bench.scratch / "job.json"), processes, bench.progress)
    figures: dict[str, Any] = json.loads((bench.scratch / SUMMARY).read_text(encoding="utf-8"))
    _record(bench, flight, {**derived, **flight.derived()}, figures.pop("deepspeed", {}))
    return {**figures, "process_memory_bytes": flight.memory, **_estimated(flight), **_choices(flight)}


def draw_loss(bench: Bench, title: str, unit: str) -> None:
    """Draw the worker's ``curve.parquet``, training and validation, as ``plots/loss.png``."""
    import pyarrow.parquet

    curve = pyarrow.parquet.read_table(bench.directory / "curve.parquet").to_pylist()
    series = {
        name: ([row["step"] for row in curve if row[column] is not None], [row[column] for row in curve if row[column] is not None])
        for name, column in (("training", "loss"), ("validation", "validation_loss"))
    }
    plots.curves(bench.directory, "loss", series, title, "step", unit)


def _estimated(flight: Preflight) -> dict[str, int]:
    return {} if flight.estimate is None else {"memory_estimate_bytes": flight.estimate.total}


def _choices(flight: Preflight) -> dict[str, Any]:
    """The settings that followed from the device, for the asset's metadata."""
    return {"hardware": {name: choice.value for name, choice in flight.job.hardware}}


def _record(bench: Bench, flight: Preflight, derived: Mapping[str, tuple[Any, str]], deepspeed: Mapping[str, Any]) -> None:
    values = {name: {"value": value, "reason": reason} for name, (value, reason) in derived.items()}
    write_json(bench.directory / RECORD, {"settings": flight.job.optimization(), "derived": values, "deepspeed": deepspeed})
    rows = [(name, value, reason) for name, (value, reason) in derived.items()]
    rows += [(f"deepspeed: {name}", json.dumps(value), "DeepSpeed's configuration as it ran") for name, value in deepspeed.items()]
    pages.table(bench.directory, "training", "How this model was trained", ("setting", "value", "reason"), rows)
