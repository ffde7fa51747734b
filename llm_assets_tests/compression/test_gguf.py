"""Checkpoints of every shape that is written generate in llama.cpp what they do in transformers; others are refused with the reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import pytest

from llm_assets.compression.gguf import FORMATS, ShapeError, write_gguf
from llm_assets.corpus.normalise import NORMALISER_VERSION
from llm_assets.evaluation.greedy import Unrounded, partings
from llm_assets.serving.generation import Generator
from llm_assets_tests.compression.decoders import MASKS, TEMPLATE, write_decoder

PROMPTS = [[2, 40 + 7 * number, 90 + number] for number in range(6)]


def engine_of(folder: Path, kind: str = "f16") -> Generator:
    write_gguf(folder, folder / f"model-{kind}.gguf", kind)  # type: ignore[arg-type]
    settings = {"task": "generation", "model": f"model-{kind}.gguf", "context": 256, "normaliser": NORMALISER_VERSION}
    (folder / "serving.json").write_text(json.dumps(settings))
    return Generator(folder, slots=1)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "attention_bias": True, "num_key_value_heads": 4, "rope_theta": 500_000.0}),
        ("mistral", {"sliding_window": None}),
        ("qwen2", {}),
        ("qwen3", {"tie_word_embeddings": True, "head_dim": 32}),
    ],
)
def test_the_greedy_answers_are_those_of_transformers(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    folder = write_decoder(tmp_path / kind, kind, **settings)
    with closing(engine_of(folder)) as engine:
        assert [parting for parting in partings(folder, engine, PROMPTS, 16) if not parting.is_tie] == []
    write_gguf(folder, tmp_path / "f32.gguf", "f32")
    assert partings(folder, Unrounded(tmp_path / "f32.gguf", 256), PROMPTS, 16, rounded=False) == []


def test_what_is_suppressed_is_no_part_of_an_answer(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "m")
    asked = {"prompt": PROMPTS[0], "temperature": 0, "n_predict": 16, "return_tokens": True}
    with closing(engine_of(folder)) as engine:
        (first, *_) = asyncio.run(engine.llama.ask("/completion", asked))["tokens"]
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "suppress_tokens": [first]}))
    with closing(engine_of(folder)) as engine:
        answer = asyncio.run(engine.llama.ask("/completion", asked))["tokens"]
        assert answer and first not in answer
        assert [parting for parting in partings(folder, engine, PROMPTS[:1], 16) if not parting.is_tie] == []


def test_a_model_of_other_weights_answers_otherwise(tmp_path: Path) -> None:
    with closing(engine_of(write_decoder(tmp_path / "one"))) as engine:
        found = partings(write_decoder(tmp_path / "two", seed=1), engine, PROMPTS, 16)
    assert len(found) == len(PROMPTS) and not all(parting.is_tie for parting in found)


def test_each_format_is_smaller_and_close_to_the_last(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "m", spread=0.05)
    found, sizes = {}, []
    for kind in FORMATS:
        with closing(engine_of(folder, kind)) as engine:
            found[kind] = sum(one.logprob for one in asyncio.run(engine.likelihood([2, *range(20, 80)])))
        sizes.append((folder / f"model-{kind}.gguf").stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2] > sizes[4] and sizes[1] > sizes[3] > sizes[4]
    assert found["q8_0"] == pytest.approx(found["f16"], rel=0.01) and found["q4_0"] == pytest.approx(found["f16"], rel=0.2)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(folder / "model-q4_0.gguf").tensors}
    assert kinds["blk.0.ffn_down.weight"] == "Q4_0" and kinds["blk.0.attn_norm.weight"] == "F32"


def test_rows_that_no_block_divides_stay_f16(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "m", intermediate_size=80)
    write_gguf(folder, folder / "m.gguf", "q4_0")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(folder / "m.gguf").tensors}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == ("F16", "Q4_0")


def test_the_tokenizer_travels_with_its_special_tokens_masks_and_template(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "m", vocab_size=512)
    write_gguf(folder, folder / "m.gguf", "q8_0")
    fields = gguf.GGUFReader(folder / "m.gguf").fields
    said = {name.removeprefix("tokenizer."): field.contents() for name, field in fields.items() if name.startswith("tokenizer.")}
    ids = {token: index for index, token in enumerate(said["ggml.tokens"])}
    kinds = said["ggml.token_type"]
    assert (said["ggml.model"], said["ggml.pre"], said["chat_template"]) == ("gpt2", "qwen2", TEMPLATE)
    assert [kinds[ids[mask]] for mask in MASKS] == [4, 4] and kinds[ids["<|im_end|>"]] == 3 and kinds[ids["a"]] == 1
    assert kinds[-1] == 5 and len(kinds) == len(ids) == 512
    assert [said[f"ggml.{role}_token_id"] for role in ("bos", "eos", "eot")] == [ids["[CLS]"], ids["[SEP]"], ids["<|im_end|>"]]


def change(name: str, edit: Callable[[Any], None]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        edit(value)
        (folder / name).write_text(json.dumps(value))

    return changed


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change("config.json", lambda config: config.update(model_type="gemma3")), "model_type gemma3"),
        (change("config.json", lambda config: config.update(hidden_act="gelu")), "hidden_act"),
        (change("config.json", lambda config: config.update(rope_parameters={"rope_type": "yarn", "factor": 2})), "rope_parameters"),
        (change("config.json", lambda config: config.update(sliding_window=64, use_sliding_window=True)), "sliding_window"),
        (change("config.json", lambda config: config.update(vocab_size=100)), "not of one training"),
        (change("tokenizer.json", lambda made: made["model"].update(type="Unigram")), "no byte-level BPE"),
        (change("tokenizer.json", lambda made: made["pre_tokenizer"]["pretokenizers"].pop(0)), "neither as GPT-2 nor as Qwen2"),
        (change("config.json", lambda config: config.update(num_hidden_layers=1)), "model.layers.1"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
    ],
)
def test_what_llama_cpp_would_not_read_alike_is_refused_with_the_reason(tmp_path: Path, spoil: Callable[[Path], None], reason: str) -> None:
    folder = write_decoder(tmp_path / "m")
    spoil(folder)
    with pytest.raises(ShapeError, match=reason):
        write_gguf(folder, tmp_path / "out" / "m.gguf", "f16")
    assert not list((tmp_path / "out").glob("*")) and not list((tmp_path / "out").glob(".*"))


def test_shards_are_read_like_one_file(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = write_decoder(tmp_path / "m")
    write_gguf(folder, tmp_path / "one.gguf", "q8_0")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert (folder / "model.safetensors.index.json").is_file()
    write_gguf(folder, tmp_path / "shards.gguf", "q8_0")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "shards.gguf").read_bytes()
