from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_assets.training.devices import DeviceError, Software
from llm_assets.training.job import Masked, ModelShape, TrainingJob
from llm_assets.training.memory import MemoryRefusedError
from llm_assets.training.preflight import preflight

HOST = {"kind": "cpu", "name": "a processor", "count": 8, "memory_bytes": 2**34}
GPU = {"kind": "cuda", "name": "A100", "count": 1, "memory_bytes": 2**33, "compute_capability": "8.0"}
SOFTWARE = Software(torch_has_cuda=True, flash_attention=False)


def job(folder: Path, **settings: object) -> TrainingJob:
    (folder / "layout.json").write_text(json.dumps({"context": 64, "vocabulary_size": 500}))
    common = {"tokenizer": folder, "output": folder, "scratch": folder, "steps": 20, "evaluate_every": 9, "shape": ModelShape()}
    return TrainingJob(objective=Masked(tokens=folder), **{**common, **settings})


def test_the_job_gets_its_hardware_and_every_derived_value_a_reason(tmp_path: Path) -> None:
    flight = preflight(job(tmp_path, schedule="warmup_stable_decay", micro_batch=4, accumulation=3), 2, [HOST], SOFTWARE)
    derived = flight.derived()
    assert flight.job.hardware.device.value == "cpu" and flight.memory == 2**33  # half of the host's for each process
    assert derived["batch"][0] == 24 and derived["warmup_steps"][0] == 2 and derived["decay_steps"][0] == 4
    parts = [value for name, (value, reason) in derived.items() if reason == "part of the estimate"]
    assert derived["memory_estimate_bytes"][0] == sum(parts) > 0
    assert all(reason for _, reason in derived.values())


def test_a_gpus_own_memory_counts_and_not_the_hosts(tmp_path: Path) -> None:
    assert preflight(job(tmp_path), 1, [HOST, GPU], SOFTWARE).memory == 2**33
    with pytest.raises(MemoryRefusedError, match="Smallest change that fits"):
        preflight(job(tmp_path, micro_batch=2**14), 1, [HOST, GPU], SOFTWARE)


def test_offload_on_a_machine_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"runs on a CPU \(device: auto, and no CUDA device was found\): set both to none"):
        preflight(job(tmp_path, offload_optimizer="cpu"), 1, [HOST], SOFTWARE)


def test_more_processes_than_gpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="processes: 2 asks for 2 GPUs"):
        preflight(job(tmp_path), 2, [HOST, GPU], SOFTWARE)


def test_compiling_without_a_compiler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preflight(job(tmp_path, torch_compile=False), 1, [HOST], SOFTWARE)
    monkeypatch.setenv("PATH", str(tmp_path))
    preflight(job(tmp_path), 1, [HOST], SOFTWARE)
    with pytest.raises(DeviceError, match=r"torch_compile: true wants a C\+\+ compiler"):
        preflight(job(tmp_path, torch_compile=True), 1, [HOST], SOFTWARE)
