"""vLLM's protocol, asked by the gateway of a stand-in for it (``vllm_stand_in.py``): the engine itself runs on GPU hosts alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from llm_assets.environments.environment import VLLM
from llm_assets.serving.engine import EngineError
from llm_assets.serving.engines import CHOICE, load_engine
from llm_assets.serving.vllm import VllmGenerator, in_vllms_words
from llm_assets_tests.environments.standing import stand_in
from llm_assets_tests.serving import vllm_stand_in
from llm_assets_tests.serving.conftest import eventually
from llm_assets_tests.serving.talking import CONTEXT, LONG, deploy, write_model
from llm_assets_tests.serving.test_completions import Served, chat, serving, text_of

FOLDER = "compressed-tensors/w4a16"
TRIAL = Path(vllm_stand_in.__file__)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment `vllm` whose interpreter starts the stand-in; returns the file of what it was asked."""
    monkeypatch.setenv("LLM_ASSETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(CHOICE, "vllm")
    monkeypatch.setenv("VLLM_STAND_IN_ASKED", str(tmp_path / "asked.jsonl"))
    stand_in(VLLM, str(TRIAL))
    return tmp_path / "asked.jsonl"


@pytest.fixture
def served(environment: Path, tmp_path: Path) -> Iterator[Served]:
    deploy(tmp_path / "home", 1, vllm=FOLDER, context=LONG)
    with serving(tmp_path / "home") as served:
        yield served


def asked(environment: Path) -> dict[str, Any]:
    """The newest body."""
    found: dict[str, Any] = json.loads(environment.read_text().splitlines()[-1])
    return found


def test_the_gateway_answers_with_what_vllm_generates(served: Served, environment: Path) -> None:
    answer = chat(served)
    sent = asked(environment)
    engine_says = vllm_stand_in.said(sent["prompt"], 12)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(next(served.home.rglob(f"{FOLDER}/tokenizer.json"))))
    expected = tokenizer.decode(engine_says, skip_special_tokens=True)
    assert answer.choices[0].message.content == text_of(chat(served, stream=True)) == expected
    assert answer.choices[0].finish_reason == "length" and answer.release == "talk-1"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(sent["prompt"]), 12)
    assert sent["temperature"] == 0 and sent["max_tokens"] == 12 and sent["stream"]

    scored = chat(served, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert len(scored) == 12 and [one.logprob for one in scored[0].top_logprobs] == pytest.approx([-0.693147, -1.386294, -2.079442], abs=1e-5)
    banned = chat(served, logit_bias={str(engine_says[0]): -100}, max_tokens=1)
    assert banned.choices[0].message.content == tokenizer.decode(vllm_stand_in.said(sent["prompt"], 1, [engine_says[0]]))
    word = expected[len(expected) // 2 :][:2]
    ended = chat(served, stop=[word], max_tokens=40).choices[0]
    assert ended.message.content == expected[: expected.index(word)] and ended.finish_reason == "stop"
    prompt = [70, *vllm_stand_in.said([70], 3), 5]
    found = served.client.completions.create(model="talk", prompt=prompt, max_tokens=1, extra_body={"prompt_logprobs": 2})
    first, *rest = found.choices[0].prompt_logprobs  # type: ignore[attr-defined]
    assert first is None and [entries[str(token)]["rank"] for token, entries in zip(prompt[1:], rest, strict=True)] == [1, 1, 1, 99]
    assert [len(entries) for entries in rest] == [2, 2, 2, 3]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="refuses this request: Invalid grammar"):
            chat(served, stream=stream, extra_body={"grammar": "root ::= ("})
    schema = {"type": "object", "properties": {"good": {"type": "boolean"}}}
    chat(served, response_format={"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}})
    assert asked(environment)["structured_outputs"] == {"json": schema}


def test_a_vllm_that_dies_is_started_again_and_those_in_flight_are_told(served: Served) -> None:
    def engine() -> psutil.Process:
        return next(one for one in psutil.Process(served.pid).children(recursive=True) if one.cmdline()[1:2] == [str(TRIAL)])

    stream = chat(served, stream=True, max_tokens=LONG - 100)
    next(stream)
    before = engine()
    before.kill()
    with pytest.raises(openai.APIError, match="died"):
        text_of(stream)

    def answers() -> bool:
        try:
            return bool(chat(served, max_tokens=1).usage.completion_tokens)
        except openai.InternalServerError as error:
            assert error.status_code == 503
            return False

    eventually(answers)
    assert engine().pid != before.pid


def test_a_vllm_that_fails_before_it_ends_is_not_taken_for_one_that_refuses(served: Served, environment: Path) -> None:
    environment.with_name("dying").touch()
    with pytest.raises(openai.InternalServerError, match="EngineCore encountered an issue") as error:
        chat(served)
    assert error.value.status_code == 503


def test_llama_cpps_fields_in_vllms_words() -> None:
    settings = {"temperature": 0.5, "n_predict": 9, "repeat_penalty": 1.1, "seed": 4, "logit_bias": [(3, False), (5, 2.0)], "return_tokens": True}
    assert in_vllms_words({**settings, "n_probs": 2, "grammar": "root ::= [a]"}, suppressed=[7]) == {
        "temperature": 0.5, "max_tokens": 9, "repetition_penalty": 1.1, "seed": 4, "logit_bias": {"3": -100.0, "5": 2.0, "7": -100.0}, "logprobs": 2,
        "structured_outputs": {"grammar": "root ::= [a]"}, "return_token_ids": True, "return_tokens_as_token_ids": True,
    }  # fmt: skip
    assert "seed" not in in_vllms_words({"seed": -1, "n_probs": 0}) and "logprobs" not in in_vllms_words({"seed": -1, "n_probs": 0})


def test_what_is_suppressed_is_banned_in_every_request(environment: Path, tmp_path: Path) -> None:
    directory = write_model(tmp_path / "model", vllm=FOLDER)
    (directory / FOLDER / "generation_config.json").write_text(json.dumps({"suppress_tokens": [61]}))
    engine = load_engine(directory)
    assert isinstance(engine, VllmGenerator)
    try:
        engine.probe("one")
        assert asked(environment)["logit_bias"] == {"61": -100.0} and len(asyncio.run(engine.likelihood([70, 71]))) == 1
        assert [one.token for one in asyncio.run(engine.likelihood([70, 71, 72, 73], since=2))] == [72, 73]
        assert engine.context == CONTEXT - 1 and len(asyncio.run(engine.likelihood([70] * engine.context))) == CONTEXT - 2
    finally:
        engine.close()


def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(CHOICE, "vllm")
    with pytest.raises(EngineError, match=r"the environment vllm, which was not made here.* Remedy: llm-assets env vllm"):
        load_engine(write_model(tmp_path / "one", vllm=FOLDER))
    with pytest.raises(EngineError, match=r"holds no compressed-tensors, which vLLM serves: set quantized_model\.compressed_tensors"):
        load_engine(write_model(tmp_path / "two"))
    monkeypatch.setenv(CHOICE, "tgi")
    with pytest.raises(EngineError, match=r"LLM_ASSETS_ENGINE is 'tgi'; the engines that generate are: llama\.cpp, vllm"):
        load_engine(tmp_path / "one")
