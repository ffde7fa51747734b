"""How far two decoders are apart on what one of them wrote."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy
import pytest

from llm_assets.serving.answer import ChatAnswer, written
from llm_assets.serving.apart import apart, bits_of, pooled
from llm_assets.serving.completion_wire import ChatRequest
from llm_assets.serving.generation import Generator
from llm_assets.serving.rollout import Apart
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
    assert asyncio.run(bits_of(engine, prompt, text)) == pytest.approx(nats / math.log(2))
    assert asyncio.run(bits_of(engine, prompt, "")) is None and asyncio.run(bits_of(engine, prompt, "a " * CONTEXT)) is None


def test_equal_models_are_not_apart_and_the_two_ways_between_others_add_up_to_nothing(engines: Engines) -> None:
    answer = asyncio.run(written(request(), "talk-1", engines[0]))
    same = asyncio.run(apart(answer, engines[2]))
    assert answer.finish and same and same.bytes == len(answer.text.encode()) and same.bits / same.bytes == pytest.approx(0, abs=1e-3)
    there, back = (asyncio.run(apart(said(engines[one], "怎么退货?"), engines[other])) for one, other in ((0, 1), (1, 0)))
    assert there and back and abs(there.bits) > 0.1 and there.bits == pytest.approx(-back.bits, abs=1e-2) and there.bytes == len("怎么退货?".encode())
    assert asyncio.run(apart(said(engines[0], ""), engines[1])) is None


def test_answers_count_by_their_bytes() -> None:
    """One of three bytes hardly moves it, as it would a mean; the error is that of answers drawn anew."""
    short, long = Apart(30.0, 3), Apart(10.0, 100)
    ratio, error = pooled([short, *[long] * 9])
    assert ratio == pytest.approx(120 / 903) and ratio < (10 + 9 * 0.1) / 10
    rng = numpy.random.default_rng(0)
    sizes = rng.integers(1, 300, 40)
    bits = 0.2 * sizes + rng.normal(0, 3, 40) * sizes**0.5
    _, error = pooled([Apart(float(one), int(size)) for one, size in zip(bits, sizes, strict=True)])
    drawn = rng.integers(0, 40, (4000, 40))
    assert error == pytest.approx((bits[drawn].sum(1) / sizes[drawn].sum(1)).std(), rel=0.15)


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
