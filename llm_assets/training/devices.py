"""What a training runs on, and every setting that follows from the device, each with its reason.

Decided once, before the launch, and handed to the workers in their job; torch is not imported for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata, util
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

DeviceKind = Literal["cpu", "cuda"]
AMPERE = (8, 0)  # compute capability of the first NVIDIA devices with bfloat16 and TF32 (NVIDIA, A100 white paper, 2020)

T = TypeVar("T")


class DeviceError(ValueError):
    """The devices asked for are not there; the message names the key and the remedy."""


class Choice(BaseModel, Generic[T]):
    """A derived value and why it is that one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: T
    reason: str


class DeviceSettings(BaseModel):
    """Everything that differs between devices. CPU and CUDA share no branch, so that neither's settings reach the other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Choice[DeviceKind]
    precision: Choice[Literal["float32", "bfloat16"]]
    adam: Choice[Literal["torch", "torch_fused", "deepspeed_cpu"]]
    collectives: Choice[Literal["gloo", "nccl"]]
    attention: Choice[Literal["sdpa", "flash_attention_2"]]
    pin_memory: Choice[bool]
    tf32: Choice[bool]


class Software(BaseModel):
    """What is installed beside the device."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    torch_has_cuda: bool
    flash_attention: bool

    @classmethod
    def installed(cls) -> Software:
        """That of this environment, read from package metadata: torch's CPU builds are versioned +cpu."""
        return cls(torch_has_cuda=not metadata.version("torch").endswith("+cpu"), flash_attention=util.find_spec("flash_attn") is not None)


CPU = DeviceSettings(
    device=Choice(value="cpu", reason="no other device is described"),
    precision=Choice(value="float32", reason="CPUs without AMX emulate bfloat16, slower than float32; and results stay comparable between machines"),
    adam=Choice(value="torch", reason="DeepSpeed's own CPU Adam wants a C++ compiler at its first start"),
    collectives=Choice(value="gloo", reason="the collective library of CPUs"),
    attention=Choice(value="sdpa", reason="flash attention's kernels are for CUDA"),
    pin_memory=Choice(value=False, reason="nothing is copied to another device"),
    tf32=Choice(value=False, reason="a format of NVIDIA's tensor cores"),
)

WHOLE: Choice[Literal["float32", "bfloat16"]] = Choice(
    value="float32", reason="optimizer: muon looks at whole matrices, which DeepSpeed lays end to end in bfloat16"
)


def decide(
    asked: Literal["auto", "cpu", "cuda"],
    processes: int,
    devices: Sequence[Mapping[str, Any]],
    software: Software,
    *,
    packed: bool,
    offload_optimizer: bool = False,
    whole_matrices: bool = False,
) -> DeviceSettings:
    """The settings for ``processes`` on these ``devices``, as the compute record describes them.

    ``packed``: batches bring a mask per document. ``whole_matrices``: the optimizer looks at them (Muon). Raises ``DeviceError`` where CUDA
    is asked for and not there, or where there are fewer GPUs than processes.
    """
    gpus = [device for device in devices if device["kind"] == "cuda"]
    if asked == "cpu":
        return CPU.model_copy(update={"device": Choice(value="cpu", reason="device: cpu asks for it")})
    if not gpus or not software.torch_has_cuda:
        missing = "no CUDA device was found" if not gpus else "this torch is built for the CPU alone"
        if asked == "cuda":
            cure = "run where nvidia-smi lists one" if not gpus else "install torch's CUDA build (pip install torch --index-url of your CUDA version)"
            raise DeviceError(f"device: cuda is asked for and {missing}. Remedy: {cure}, or set device: cpu or auto")
        return CPU.model_copy(update={"device": Choice(value="cpu", reason=f"device: auto, and {missing}")})
    count = sum(int(device["count"]) for device in gpus)
    if processes > count:
        raise DeviceError(
            f"processes: {processes} asks for {processes} GPUs, one a process, and there {'is' if count == 1 else 'are'} {count}. Remedy: processes: "
            f"{count} with accumulation times {processes}/{count}, which keeps the batch and goes on from the same checkpoint; or device: cpu"
        )
    found = _cuda(asked, gpus[0], software, packed, offload_optimizer)
    return found.model_copy(update={"precision": WHOLE}) if whole_matrices else found


def _cuda(asked: str, gpu: Mapping[str, Any], software: Software, packed: bool, offload_optimizer: bool) -> DeviceSettings:
    name, capability = gpu["name"], tuple(map(int, str(gpu.get("compute_capability", "0.0")).split(".")))
    shown, modern = ".".join(map(str, capability)), capability >= AMPERE
    return DeviceSettings(
        device=Choice(value="cuda", reason=f"device: {asked}, and {name} is there"),
        precision=Choice(value="bfloat16", reason=f"compute capability {shown} has it; its range is float32's, so no loss scaling is needed")
        if modern
        else Choice(value="float32", reason=f"compute capability {shown} has no bfloat16 (8.0 has), and float16 would need loss scaling"),
        adam=Choice(value="deepspeed_cpu", reason="offload_optimizer: cpu keeps the states on the host, where DeepSpeed's CPU Adam updates them")
        if offload_optimizer
        else Choice(value="torch_fused", reason="one kernel for all weights instead of several a weight"),
        collectives=Choice(value="nccl", reason="the collective library of NVIDIA devices"),
        attention=_attention(software, modern, packed),
        pin_memory=Choice(value=True, reason="batches are copied to the device while it computes"),
        tf32=Choice(value=modern, reason=f"compute capability {shown} {'has' if modern else 'lacks'} it, for products that stay in float32"),
    )


def _attention(software: Software, modern: bool, packed: bool) -> Choice[Literal["sdpa", "flash_attention_2"]]:
    if packed:
        return Choice(value="sdpa", reason="packed blocks bring a mask per document, which flash attention does not take")
    if not software.flash_attention:
        return Choice(value="sdpa", reason="flash_attn is not installed")
    if not modern:
        return Choice(value="sdpa", reason="flash attention 2 wants compute capability 8.0")
    return Choice(value="flash_attention_2", reason="flash_attn is installed, and no score matrix is written to memory (Dao 2023)")
