from __future__ import annotations

from pathlib import Path

import pytest

from llm_assets.training.devices import Software, decide
from llm_assets.training.job import Masked, TrainingJob
from llm_assets.training.zero import deepspeed_config

GPU = {"kind": "cuda", "name": "H100", "count": 1, "memory_bytes": 80 * 2**30, "compute_capability": "9.0"}
SOFTWARE = Software(torch_has_cuda=True, flash_attention=False)


def config(device: str = "cpu", **settings: object) -> dict[str, object]:
    offload = settings.get("offload_optimizer") == "cpu"
    hardware = decide("auto", 1, [GPU] if device == "cuda" else [], SOFTWARE, packed=True, offload_optimizer=offload)
    common = {"tokenizer": "t", "output": "o", "scratch": "s", "steps": 3, "evaluate_every": 1, "hardware": hardware}
    return deepspeed_config(TrainingJob(objective=Masked(tokens=Path("x")), **common, **settings))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_stage_and_a_cpu_optimizer_without_cuda(stage: int) -> None:
    cpu, cuda = config(zero_stage=stage), config("cuda", zero_stage=stage)
    assert cpu["zero_optimization"]["stage"] == stage
    assert cpu["optimizer"]["params"]["torch_adam"] and "fused" not in cpu["optimizer"]["params"] and not cpu["bf16"]["enabled"]
    assert cuda["optimizer"]["params"]["fused"] and cuda["optimizer"]["params"]["torch_adam"] and cuda["bf16"]["enabled"]


def test_the_other_optimizers() -> None:
    sgd, nadamw = config(optimizer="sgd", beta1=0.8)["optimizer"], config(optimizer="nadamw")["optimizer"]
    assert sgd == {"type": "SGD", "params": {"lr": "auto", "weight_decay": "auto", "momentum": 0.8, "nesterov": True}}
    assert nadamw["type"] == "NAdam" and nadamw["params"]["decoupled_weight_decay"]
    assert not config(optimizer="sgd", beta1=0)["optimizer"]["params"]["nesterov"]  # torch refuses Nesterov without momentum
    assert config(optimizer="sgd")["zero_allow_untested_optimizer"] and not config()["zero_allow_untested_optimizer"]


def test_offload_goes_where_it_is_asked_and_with_deepspeeds_own_adam() -> None:
    found = config("cuda", zero_stage=3, offload_optimizer="cpu", offload_parameters="cpu")
    assert found["zero_optimization"]["offload_optimizer"] == found["zero_optimization"]["offload_param"] == {"device": "cpu", "pin_memory": True}
    assert found["optimizer"]["params"]["torch_adam"] is False and "fused" not in found["optimizer"]["params"]
    assert not {"offload_optimizer", "offload_param"} & config("cuda", zero_stage=3)["zero_optimization"].keys()
