"""How far two decoders are apart on what one of them wrote."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from llm_assets.serving.answer import ChatAnswer, written
from llm_assets.serving.apart import apart, bits_per_byte
from llm_assets.serving.completion_wire import ChatRequest
from llm_assets.serving.generation import Generator
from llm_assets_tests.serving.talking import CONTEXT, write_model

Engines = dict[int, Generator]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Two decoders of other weights, and one more of the first's."""
    with ExitStack() as stack:
        folders = {name: write_model(tmp_path_factory.mktemp("model"), seed=name % 2) for name in (0, 1, 2)}
        yield {name: stack.enter_context(closing(Generator(folder, slots=2))) for name, folder in folders.items()}


def request(**settings: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "talk", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "seed": 1, **settings})


def said(engine: Generator, text: str) -> ChatAnswer:
    answer = ChatAnswer(request(), "talk-1", engine)
    answer.text, answer.finish = text, "stop"
    return answer


def test_the_bits_of_an_answer_are_those_of_its_tokens_after_the_prompt(engines: Engines) -> None:
    engine, text = engines[0], "The weather is fine"
    prompt = engine.chat([{"role": "user", "content": "hello"}])
    ids = [*prompt, *engine.tokenizer.encode(text, add_special_tokens=False).ids]
    likely = asyncio.run(engine.likelihood(ids, top=2))
    later = asyncio.run(engine.likelihood(ids, top=2, since=len(prompt)))
    assert [(one.token, one.rank) for one in later] == [(one.token, one.rank) for one in likely[len(prompt) - 1 :]]
    nats = -sum(one.logprob for one in likely[len(prompt) - 1 :])
    assert asyncio.run(bits_per_byte(engine, prompt, text)) == pytest.approx(nats / math.log(2) / len(text))
    assert asyncio.run(bits_per_byte(engine, prompt, "")) is None and asyncio.run(bits_per_byte(engine, prompt, "a " * CONTEXT)) is None


def test_equal_models_are_not_apart_and_the_two_ways_between_others_add_up_to_nothing(engines: Engines) -> None:
    answer = asyncio.run(written(request(), "talk-1", engines[0]))
    assert answer.finish and asyncio.run(apart(answer, engines[2])) == pytest.approx(0, abs=1e-3)
    there, back = (asyncio.run(apart(said(engines[one], "怎么退货?"), engines[other])) for one, other in ((0, 1), (1, 0)))
    assert there is not None and back is not None and abs(there) > 0.01 and there == pytest.approx(-back, abs=1e-3)
    assert asyncio.run(apart(said(engines[0], ""), engines[1])) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"grammar": 'root ::= "a"'}, {"logit_bias": {"5": -100}}, {"bad_words": ["a"]}, {"response_format": {"type": "json_object"}},
        {"presence_penalty": 1}, {"frequency_penalty": 1}, {"repetition_penalty": 1.1},
        {"temperature": 1.5}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1},
    ],
)  # fmt: skip
def test_an_answer_that_was_given_a_shape_says_nothing_of_its_model(settings: dict[str, Any]) -> None:
    assert not request(**settings).is_free
    assert request(temperature=0, top_p=0.5, response_format={"type": "text"}).is_free
