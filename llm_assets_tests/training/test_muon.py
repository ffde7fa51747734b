"""Muon on matrices whose orthogonal part is known, and its AdamW beside torch's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from llm_assets.training.devices import Software
from llm_assets.training.job import Masked, ModelShape, TrainingJob
from llm_assets.training.muon import RMS, Muon, is_matrix, orthogonal
from llm_assets.training.preflight import preflight
from llm_assets.training.zero import deepspeed_config


@pytest.mark.parametrize("rows, columns", [(6, 6), (12, 5), (5, 12)])
def test_the_iteration_keeps_directions_and_levels_singular_values(rows: int, columns: int) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(rows, columns)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix)
    inner = left.T @ found @ right.T  # diagonal where the singular vectors are the same
    assert float((inner - inner.diag().diag()).abs().max()) < 1e-3
    assert float(inner.diag().min()) > 0.6 and float(inner.diag().max()) < 1.3


def test_an_update_by_hand() -> None:
    """A first gradient of 3 I: momentum .15 I, looked ahead still a multiple of I; orthogonal, so of the rate times .2 times the root of 2."""
    weight = nn.Parameter(torch.zeros(2, 2))
    update = Muon([("model.layers.0.mlp.up_proj.weight", weight)], 0.1, (0.9, 0.95), 1e-8, 0.0)
    weight.grad = 3 * torch.eye(2)
    update.step()
    expected = -0.1 * RMS * 2**0.5 * orthogonal(torch.eye(2))
    assert torch.allclose(weight, expected, atol=1e-6) and float(weight[0, 0]) == pytest.approx(-0.0283, rel=0.3)


def test_what_is_no_matrix_of_a_layer_is_updated_as_torchs_adamw_does() -> None:
    torch.manual_seed(1)
    names = ("model.embed_tokens.weight", "model.layers.0.input_layernorm.weight")
    mine, theirs = ([nn.Parameter(start.clone()) for start in starts] for starts in [(torch.randn(7, 3), torch.ones(3))] * 2)
    for one, other in zip(mine, theirs, strict=True):
        other.data.copy_(one.data)
    settings = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    ours, torchs = Muon(zip(names, mine, strict=True), **settings), torch.optim.AdamW(theirs, **settings)
    for seed in range(4):
        for one, other in zip(mine, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=torch.Generator().manual_seed(seed))
            other.grad = one.grad.clone()
        ours.step(), torchs.step()
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert not is_matrix(names[0], mine[0]) and is_matrix("model.layers.3.self_attn.q_proj.weight", mine[0])


def job(folder: Path, **settings: object) -> TrainingJob:
    common = {"tokenizer": folder, "output": folder, "scratch": folder, "steps": 1, "evaluate_every": 1, "shape": ModelShape()}
    return TrainingJob(objective=Masked(tokens=folder), optimizer="muon", **common, **settings)


def test_it_needs_whole_matrices(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"optimizer: muon needs zero_stage 0 \(it is 1\)"):
        job(tmp_path)
    assert "optimizer" not in deepspeed_config(job(tmp_path, zero_stage=0))  # the worker makes it
    gpu = {"kind": "cuda", "name": "A100", "count": 1, "memory_bytes": 80 * 2**30, "compute_capability": "8.0"}
    (tmp_path / "layout.json").write_text('{"context": 64, "vocabulary_size": 500}')
    hardware = preflight(job(tmp_path, zero_stage=0), 1, [gpu], Software(torch_has_cuda=True, flash_attention=False)).job.hardware
    assert hardware.precision.value == "float32" and "muon looks at whole matrices" in hardware.precision.reason and hardware.tf32.value
