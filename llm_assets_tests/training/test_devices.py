"""Settings follow from a described device: no GPU is needed to see what one would get."""

from __future__ import annotations

import pytest

from llm_assets.training.devices import DeviceError, Software, decide

HOST = {"kind": "cpu", "name": "a processor", "count": 8, "memory_bytes": 2**34}
H100 = {"kind": "cuda", "name": "H100", "count": 1, "memory_bytes": 80 * 2**30, "compute_capability": "9.0"}
V100 = {"kind": "cuda", "name": "V100", "count": 4, "memory_bytes": 16 * 2**30, "compute_capability": "7.0"}
CUDA = Software(torch_has_cuda=True, flash_attention=True)
PLAIN = Software(torch_has_cuda=False, flash_attention=False)


def values(settings) -> dict[str, object]:
    return {name: getattr(settings, name).value for name in type(settings).model_fields}


def test_a_modern_gpu_gets_everything_that_is_cudas() -> None:
    found = decide("auto", 1, [HOST, H100], CUDA, packed=False)
    assert values(found) == {
        "device": "cuda", "precision": "bfloat16", "adam": "torch_fused", "collectives": "nccl",
        "attention": "flash_attention_2", "pin_memory": True, "tf32": True,
    }  # fmt: skip


def test_a_cpu_gets_nothing_that_is_cudas_though_flash_attention_is_installed() -> None:
    for asked, devices in (("auto", [HOST]), ("cpu", [HOST, H100])):
        assert values(decide(asked, 2, devices, CUDA, packed=False, offload_optimizer=True)) == {
            "device": "cpu", "precision": "float32", "adam": "torch", "collectives": "gloo",
            "attention": "sdpa", "pin_memory": False, "tf32": False,
        }  # fmt: skip


def test_an_older_gpu_gets_no_bfloat16_tf32_or_flash() -> None:
    found = values(decide("cuda", 4, [HOST, V100], CUDA, packed=False))
    assert (found["precision"], found["tf32"], found["attention"], found["collectives"]) == ("float32", False, "sdpa", "nccl")


def test_packed_blocks_and_offload_have_their_say() -> None:
    found = decide("auto", 1, [H100], CUDA, packed=True, offload_optimizer=True)
    assert found.attention.value == "sdpa" and "mask per document" in found.attention.reason
    assert found.adam.value == "deepspeed_cpu" and "offload_optimizer" in found.adam.reason


def test_every_value_has_a_reason() -> None:
    for settings in (decide("auto", 1, [H100], CUDA, packed=True), decide("auto", 1, [HOST], PLAIN, packed=True)):
        assert all(len(getattr(settings, name).reason) > 10 for name in type(settings).model_fields)
    assert "built for the CPU" in decide("auto", 1, [HOST, H100], PLAIN, packed=True).device.reason
    assert "no CUDA device" in decide("auto", 1, [HOST], CUDA, packed=True).device.reason


def test_cuda_asked_for_and_none_there() -> None:
    with pytest.raises(DeviceError, match=r"device: cuda is asked for and no CUDA device was found. Remedy: .* device: cpu or auto"):
        decide("cuda", 1, [HOST], CUDA, packed=False)
    with pytest.raises(DeviceError, match=r"this torch is built for the CPU alone. Remedy: install torch's CUDA build"):
        decide("cuda", 1, [HOST, H100], PLAIN, packed=False)


def test_more_processes_than_gpus() -> None:
    with pytest.raises(DeviceError, match=r"processes: 2 asks for 2 GPUs, one a process, and there is 1. Remedy: processes: 1 with accumulation"):
        decide("auto", 2, [HOST, H100], CUDA, packed=False)
    assert decide("cuda", 4, [HOST, V100], CUDA, packed=False).device.value == "cuda"
