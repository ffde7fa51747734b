"""Compressed-tensors: llm-compressor's worker for real where its environment is made; its protocol, its end and its figures everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from llm_assets.compression import llmcompressor_worker
from llm_assets.compression.compressed import LOG, CompressionError, Scheme, compress
from llm_assets.environments.environment import COMPRESSED_TENSORS
from llm_assets_tests.compression.decoders import write_decoder

TEXTS = [[2, *range(20 + number, 60 + number)] for number in range(4)]
WORKER = Path(llmcompressor_worker.__file__)


def test_what_is_said_of_the_texts_is_what_transformers_says(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(write_decoder(tmp_path / "m")).eval()
    for opening in (1, 2):
        with torch.no_grad():
            said = [
                cross_entropy(model(torch.tensor([ids])).logits[0, opening - 1 : -1], torch.tensor(ids[opening:]), reduction="sum") for ids in TEXTS
            ]
        assert llmcompressor_worker.nats(model, TEXTS, opening) == pytest.approx(float(sum(said)), rel=1e-5)


@pytest.mark.parametrize(("width", "inner", "shared"), [(128, 256, 128), (64, 192, 64), (96, 64, 32), (80, 64, None)])
def test_weights_share_a_scale_in_groups_that_divide_every_row(width: int, inner: int, shared: int | None) -> None:
    layers = torch.nn.ModuleDict({"up": torch.nn.Linear(width, inner), "down": torch.nn.Linear(inner, width), "lm_head": torch.nn.Linear(7, 3)})
    weights = llmcompressor_worker.scheme("W4A16", layers)["config_groups"]["group_0"]["weights"]
    assert weights.get("group_size") == shared and weights["strategy"] == ("channel" if shared is None else "group")
    assert llmcompressor_worker.scheme("W8A8", layers) == {"targets": "Linear", "scheme": "W8A8"}


def test_an_interpreter_without_llm_compressor_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    seen: list[float] = []
    with pytest.raises(CompressionError, match=r"(?s)did not round .* to w4a16 \(status 1\).*No module named 'llmcompressor'"):
        compress(
            Path(sys.executable), write_decoder(tmp_path / "m"), tmp_path / "out", "w4a16", TEXTS, TEXTS, tmp_path, lambda done, *_: seen.append(done)
        )
    assert seen == [0] and "Traceback" in (tmp_path / LOG).read_text()


def test_the_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    command = [sys.executable, "-I", WORKER, tmp_path / "job.json"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "Error" not in ended.stderr


@pytest.mark.slow
@pytest.mark.skipif(not COMPRESSED_TENSORS.is_made, reason="needs `llm-assets env compressed-tensors`")
@pytest.mark.parametrize(("scheme", "bits"), [("w8a8", 8), ("w4a16", 4)])
def test_llm_compressor_rounds_a_decoder_in_its_environment(scheme: Scheme, bits: int, tmp_path: Path) -> None:
    model = write_decoder(tmp_path / "m", spread=0.05)
    found = compress(COMPRESSED_TENSORS.python(), model, tmp_path / "out", scheme, TEXTS * 4, TEXTS, tmp_path)
    settings = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == "compressed-tensors" and settings["config_groups"]["group_0"]["weights"]["num_bits"] == bits
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    kinds = {name.rpartition(".")[2]: tensor.dtype for name, tensor in tensors.items() if "down_proj" in name}
    assert kinds[{8: "weight", 4: "weight_packed"}[bits]] == {8: torch.int8, 4: torch.int32}[bits] and "weight_scale" in kinds
    assert 0 < abs(found["nats_after"] / found["nats_before"] - 1) < {8: 0.01, 4: 0.1}[bits]
    assert found["versions"]["llmcompressor"] in str(COMPRESSED_TENSORS.pins)
