"""Adapters that llama.cpp adds to a decoder answer as PEFT's beside its weights; what it would not add alike is refused with the reason."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import pytest

from llm_assets.compression.gguf import ShapeError, write_gguf
from llm_assets.compression.gguf_adapter import write_adapter
from llm_assets.corpus.normalise import NORMALISER_VERSION
from llm_assets.evaluation.greedy import partings
from llm_assets.serving.generation import Generator
from llm_assets_tests.compression.decoders import ENDS, write_decoder, write_lora

PROMPTS = [[2, 40 + 3 * number, 90 + number] for number in range(16)]


def engine_of(folder: Path, **adapters: Path) -> Generator:
    write_gguf(folder, folder / "model-f16.gguf", "f16")
    for name, adapter in adapters.items():
        write_adapter(folder, adapter, folder / f"{name}.gguf")
    files = {name: f"{name}.gguf" for name in adapters}
    settings = {"task": "generation", "model": "model-f16.gguf", "context": 256, "normaliser": NORMALISER_VERSION, "adapters": files}
    (folder / "serving.json").write_text(json.dumps(settings))
    return Generator(folder, slots=1)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("llama", {}), ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}), ("qwen2", {}), ("qwen3", {})],
)
def test_the_greedy_answers_are_those_of_peft_beside_the_weights(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    folder = write_decoder(tmp_path / kind, kind, eos_token_id=ENDS, **settings)
    kept = {"one": write_lora(folder, tmp_path / "a"), "two": write_lora(folder, tmp_path / "b", seed=1, kind="rslora", rank=8)}
    with closing(engine_of(folder, **kept)) as engine:
        for name, adapter in kept.items():
            assert [parting for parting in partings(folder, engine, PROMPTS, 16, (name, adapter)) if not parting.is_tie] == []
        assert [parting for parting in partings(folder, engine, PROMPTS, 16) if not parting.is_tie] == []
        assert len(partings(folder, engine, PROMPTS, 16, ("one", kept["two"]))) == len(PROMPTS), "the adapters change nothing"


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "m")
    write_adapter(folder, write_lora(folder, tmp_path / "a", kind="rslora", rank=16, alpha=4), tmp_path / "a.gguf")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    said = {name: reader.fields[name].contents() for name in ("general.type", "general.architecture", "adapter.type", "adapter.lora.alpha")}
    assert said == {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora", "adapter.lora.alpha": 16.0}
    kinds = {tensor.name: (tensor.tensor_type.name, tensor.shape.tolist()) for tensor in reader.tensors}
    assert kinds["blk.1.attn_k.weight.lora_a"] == ("F32", [64, 16]) and kinds["blk.1.attn_k.weight.lora_b"] == ("F32", [16, 32])
    assert len(kinds) == 2 * 7 * 2 and not any("output" in name.split(".")[0] for name in kinds)


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("dora", {}, "use_dora: true"),
        ("pissa", {}, 'init_lora_weights: "pissa"'),
        ("ia3", {}, "kind IA3 is no LoRA"),
        ("lora", {"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ("lora", {"r": 5}, "not of one training"),
    ],
)
def test_what_llama_cpp_would_not_add_alike_is_refused(tmp_path: Path, kind: str, change: dict[str, Any], reason: str) -> None:
    folder = write_decoder(tmp_path / "m")
    adapter = write_lora(folder, tmp_path / "a", kind=kind)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, **change}))
    with pytest.raises(ShapeError, match=reason):
        write_adapter(folder, adapter, tmp_path / "out" / "a.gguf")
    assert not list((tmp_path / "out").glob("*")) and not list((tmp_path / "out").glob(".*"))


def test_an_adapter_of_another_decoder_is_refused(tmp_path: Path) -> None:
    adapter = write_lora(write_decoder(tmp_path / "deep", num_hidden_layers=3), tmp_path / "a")
    with pytest.raises(ShapeError, match=r"layers\.2"):
        write_adapter(write_decoder(tmp_path / "m"), adapter, tmp_path / "a.gguf")
