"""On a real GPU, and skipped where there is none: trainings in bfloat16 beside the CPU's, their memory, and a preempted one that goes on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from llm_assets.links.compute import gpus
from llm_assets.store.progress import silent
from llm_assets.training.attention import Packing, by_document
from llm_assets.training.devices import DeviceError
from llm_assets.training.job import SUMMARY, TrainingJob
from llm_assets.training.launch import PreemptedError, launch
from llm_assets.training.preflight import Preflight, preflight
from llm_assets_tests.training import test_preemption

pytestmark = pytest.mark.skipif(not (torch.cuda.is_available() and gpus()), reason="no CUDA device")

HOST = {"kind": "cpu", "name": "test", "count": 1, "memory_bytes": 2**34}
CLOSE = 0.02  # of a loss: bfloat16 keeps 8 bits
WIDE = {"hidden": 512, "layers": 8, "heads": 8, "intermediate": 1408, "architecture": "llama", "key_value_heads": 8}


def flight(folder: Path, parts: test_preemption.Parts, device: str, **settings: Any) -> Preflight:
    folder.mkdir()
    common = {"steps": 3, "evaluate_every": 3, "seed": 1, "micro_batch": 8, "learning_rate": 1e-3, "zero_stage": 1}
    job = TrainingJob(output=folder / "out", scratch=folder, device=device, **parts, **{**common, **settings})
    return preflight(job, 1, [HOST, *gpus()])


def trained(found: Preflight) -> tuple[list[float], float, dict[str, Any]]:
    """Each update's loss, the last validation loss, and the summary."""
    launch(found.job.write(found.job.scratch / "job.json"), 1, silent)
    curve = pyarrow.parquet.read_table(found.job.output / "curve.parquet").to_pylist()
    losses = [row["loss"] for row in curve if row["loss"] is not None]
    return losses, curve[-1]["validation_loss"], json.loads((found.job.scratch / SUMMARY).read_text())


@pytest.mark.parametrize("learnt", ["masked", "causal", "single_label", "regression"])
def test_a_gpu_learns_in_bfloat16_what_a_cpu_does_and_leaves_float32(tmp_path: Path, learnt: str) -> None:
    parts = test_preemption.LEARNT[learnt](tmp_path)
    if "dropout" in parts["objective"]:
        parts["objective"] |= {"dropout": 0.0}  # each device draws other masks
    gpu, cpu = (flight(tmp_path / device, parts, device) for device in ("cuda", "cpu"))
    assert gpu.job.hardware.precision.value == "bfloat16" and gpu.job.hardware.adam.value == "torch_fused"
    found, wanted = trained(gpu), trained(cpu)
    assert found[0] == pytest.approx(wanted[0], rel=CLOSE) and found[1] == pytest.approx(wanted[1], rel=CLOSE)
    assert {tensor.dtype for tensor in load_file(gpu.job.output / "model.safetensors").values()} == {torch.float32}
    assert json.loads((gpu.job.output / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("shared", [4, 2])
def test_attention_by_document_is_the_cpus(shared: int) -> None:
    torch.manual_seed(0)
    packing = Packing((numpy.random.default_rng(0).random((3, 90)) < 0.08).cumsum(1))
    query, key, value = (torch.randn(3, heads, 90, 16).bfloat16() for heads in (4, shared, shared))
    found = []
    for device in ("cuda", "cpu"):
        number = torch.bfloat16 if device == "cuda" else torch.float32
        given = [tensor.to(device, number).requires_grad_() for tensor in (query, key, value)]
        documents = {name: part.to(device) if isinstance(part, torch.Tensor) else part for name, part in packing.tensors().items()}
        attended, _ = by_document(torch.nn.Module(), *given, None, documents, scaling=0.3)
        found.append([one.float().cpu() for one in (attended, *torch.autograd.grad(attended.square().sum(), given))])
    for one, other in zip(*found, strict=True):
        assert float((one - other).norm() / other.norm()) < CLOSE


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_estimate_covers_what_a_gpu_took(tmp_path: Path, stage: int) -> None:
    parts = test_preemption.causal(tmp_path) | {"shape": WIDE}
    asked = flight(tmp_path / "run", parts, "cuda", zero_stage=stage, micro_batch=256)
    taken = trained(asked)[2]["memory_measured_bytes"]
    assert asked.estimate is not None
    assert taken <= asked.estimate.total <= 2 * taken + asked.estimate.runtime


def test_what_is_preempted_on_a_gpu_goes_on_to_the_same_loss(tmp_path: Path) -> None:
    parts = test_preemption.causal(tmp_path)
    whole, broken = (flight(tmp_path / name, parts, "cuda", steps=40, evaluate_every=40, checkpoint_seconds=0) for name in ("whole", "broken"))
    wanted = trained(whole)[1]
    asked: list[int] = []

    def ask(done: float, total: float, unit: str, **values: float) -> None:
        if done >= 5 and not asked:
            asked.append(min(int(path.name) for path in (broken.job.scratch / "workers").iterdir()))
            os.kill(asked[0], signal.SIGTERM)

    with pytest.raises(PreemptedError, match="saved a checkpoint at step"):
        launch(broken.job.write(broken.job.scratch / "job.json"), 1, ask)
    _, found, summary = trained(broken)
    assert 0 < summary["resumed_from"] < 40 and found == pytest.approx(wanted, rel=1e-3)


def test_muon_trains_in_float32(tmp_path: Path) -> None:
    asked = flight(tmp_path / "run", test_preemption.causal(tmp_path), "cuda", optimizer="muon", zero_stage=0)
    assert asked.job.hardware.precision.value == "float32"
    assert trained(asked)[0][-1] > 0


def test_more_processes_than_there_are_gpus_are_refused(tmp_path: Path) -> None:
    count = sum(gpu["count"] for gpu in gpus())
    job = flight(tmp_path / "run", test_preemption.causal(tmp_path), "cuda").job
    with pytest.raises(DeviceError, match=f"processes: {count + 1} asks for {count + 1} GPUs"):
        preflight(job, count + 1, [HOST, *gpus()])
