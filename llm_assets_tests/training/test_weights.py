from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from llm_assets.training.weights import TokenizerMismatchError, WeightsError, check_tokenizer, header, parameters, shards

SPECIAL = {"pad_token": 0, "cls_token": 2, "sep_token": 3, "mask_token": 4}
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def sharded(folder: Path) -> Path:
    save_file({"a": numpy.zeros((3, 4), numpy.float32), "b": numpy.zeros(5, numpy.float16)}, folder / ONE)
    save_file({"c": numpy.zeros((2, 2, 2), numpy.float32)}, folder / TWO)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": ONE, "b": ONE, "c": TWO}}))
    return folder


def test_shapes_come_from_the_headers(tmp_path: Path) -> None:
    sharded(tmp_path)
    assert header(tmp_path / ONE) == {"a": (3, 4), "b": (5,)}
    assert parameters(tmp_path) == 12 + 5 + 8


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (sharded(tmp_path) / TWO).unlink()
    with pytest.raises(WeightsError, match=rf"{TWO} is missing .* names it for 1 of 3 weights. Remedy"):
        shards(tmp_path)


def test_a_cut_shard_is_named(tmp_path: Path) -> None:
    whole = (sharded(tmp_path) / ONE).read_bytes()
    for damaged, message in ((whole[:-3], "it was cut off"), (whole[:5], "no whole safetensors file"), (b"\xff" * 200, "no whole safetensors file")):
        (tmp_path / ONE).write_bytes(damaged)
        with pytest.raises(WeightsError, match=rf"{ONE} .*{message}"):
            parameters(tmp_path)


def test_an_index_that_places_nothing_is_named(tmp_path: Path) -> None:
    (sharded(tmp_path) / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json .* has no weight_map"):
        shards(tmp_path)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"vocab_size": 20}, "knows 20 tokens, the tokenizer makes 27"),
        ({"vocab_size": 27, "pad_token_id": 1}, "means token 1 by pad_token, the tokenizer 0"),
        ({"vocab_size": 27, "pad_token_id": 0, "sep_token_id": 9}, "means token 9 by sep_token, the tokenizer 3"),
        ({"vocab_size": 27, "bos_token_id": 7}, "means token 7 by bos_token, the tokenizer 2"),
    ],
)
def test_a_tokenizer_that_does_not_go_with_the_checkpoint(tmp_path: Path, config: dict[str, int], message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerMismatchError, match=rf"{message}: name that checkpoint's own tokenizer under tokenizer.existing"):
        check_tokenizer(tmp_path, 27, SPECIAL)


def test_a_tokenizer_that_goes_with_it(tmp_path: Path) -> None:
    roles = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "mask_token_id": None}
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 30, **roles}))
    check_tokenizer(tmp_path, 27, SPECIAL)
