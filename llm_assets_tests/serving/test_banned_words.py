"""Words that an answer must not hold: the automaton by itself, then llama.cpp under its grammar."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llm_assets.serving.answer import ChatAnswer
from llm_assets.serving.banned_words import LETTERS, grammar_without, is_read_as_written, transitions
from llm_assets.serving.completion_wire import CHARACTERS, WORDS, ChatRequest
from llm_assets.serving.errors import ApiError
from llm_assets.serving.generation import Generator
from llm_assets_tests.serving.talking import write_model

TOKENS = 48
LONGEST = 16  # characters of a token of the model's: what comes before one that would complete a word is as without the ban
ASKED = ("怎么退货?", "The weather", "Thanks!", "我非常喜欢")
SMALL = st.text("ab好", min_size=1, max_size=4)


def survives(words: list[str], text: str) -> bool:
    tables, state = transitions(words), 0
    for character in text:
        following = tables[state].get(character, 0)
        if following is None:
            return False
        state = following
    return True


def test_no_alternative_of_the_grammar_is_empty_which_vllms_xgrammar_does_not_read() -> None:
    rules = grammar_without(("好的", "ab")).splitlines()
    assert rules and all(rule.partition(" ::= ")[2].startswith('"" | [') and "|  |" not in rule for rule in rules)


@settings(max_examples=500, derandomize=True, database=None)
@given(words=st.lists(SMALL, min_size=1, max_size=5), text=st.text("ab好c", max_size=12))
@example(words=["aab"], text="aaab")
@example(words=["abab", "ba"], text="aba")
def test_a_text_survives_where_it_holds_no_word(words: list[str], text: str) -> None:
    assert survives(words, text) == (not any(word in text for word in words))


def test_tokens_that_the_grammar_would_misread_are_told_from_those_that_are_cut() -> None:
    letters = {byte: letter for letter, byte in LETTERS.items()}
    assert sorted(letters) == list(range(256)) and letters[ord(" ")] == "Ġ" and letters[ord("a")] == "a"

    def is_read(piece: bytes) -> bool:
        return is_read_as_written("".join(letters[byte] for byte in piece))

    assert all(map(is_read, ("好".encode(), "好".encode()[:2], "好".encode()[1:], b"\xbda", b" good", b"\xf0\x9f")))
    assert not any(map(is_read, (b"\0", b"a\0b", b"\xe5a", b"\xe5\xa5a", b"\xff", b"a\xe5b")))
    assert not is_read_as_written("▁of no byte")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    with closing(Generator(write_model(tmp_path_factory.mktemp("model")), slots=4)) as engine:
        yield engine


def said(engine: Generator, prompt: str, stream: list[str] | None = None, **asked: Any) -> str:
    """The answer to a prompt, and each piece as it was streamed."""
    request = ChatRequest.model_validate(
        {"model": "talk", "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": TOKENS, **asked}
    )
    answer = ChatAnswer(request, "talk-1", engine)

    async def whole() -> None:
        async for events in answer.events():
            text, _ = answer.take(events)
            if stream is not None:
                stream.append(text)

    asyncio.run(whole())
    answer.check_whole()
    return answer.text


NEVER_SAID = ["\ue000"]  # under its grammar all of Unicode may come, as under any; without one this model writes half characters too


def test_the_engine_never_says_a_word_that_it_would_say(engine: Generator) -> None:
    """Words of every cutting, out of greedy answers: parts of tokens, whole ones, several, with and without a space, of several bytes."""
    whole = {prompt: said(engine, prompt, banned_words=NEVER_SAID) for prompt in ASKED}
    assert all(len(text) > 20 for text in whole.values())
    kinds = set[str]()

    @settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(prompt=st.sampled_from(ASKED), seed=st.integers(0, 1 << 30), count=st.integers(1, 4))
    def holds(prompt: str, seed: int, count: int) -> None:
        text, draw = whole[prompt], random.Random(seed)
        words = []
        for _ in range(count):
            start = draw.randrange(len(text) - 8)
            words.append(text[start : start + draw.randint(1, 8)])
        first = min(text.index(word) + len(word) for word in words)
        streamed: list[str] = []
        answer = said(engine, prompt, streamed, banned_words=words)
        assert not [word for word in words if word in answer], "a banned word was said"
        assert answer.startswith(text[: max(0, first - LONGEST)]) and answer != text
        assert "".join(streamed) == answer
        kinds.update("several bytes" if word[-1] > "\x7f" else "one" for word in words)
        kinds.update("several tokens" for word in words if len(engine.tokenizer.encode(word).ids) > 2)

    holds()
    assert kinds == {"one", "several bytes", "several tokens"}, "the words are not of every kind"


def test_nothing_but_the_word_is_lost(engine: Generator) -> None:
    """A neighbour of a banned character, which begins with the same bytes, is still said byte by byte."""
    letter = next(c for text in (said(engine, one, banned_words=NEVER_SAID) for one in ASKED) for c in text if c > "\u0800")
    neighbour = chr(ord(letter) ^ 1)
    prompt = next(one for one in ASKED if letter in said(engine, one, banned_words=NEVER_SAID))
    assert said(engine, prompt, banned_words=[neighbour]) == said(engine, prompt, banned_words=NEVER_SAID)
    assert letter not in said(engine, prompt, banned_words=[letter])


def test_no_special_token_hides_a_word(engine: Generator) -> None:
    """Special tokens are written as nothing, so `a<|im_start|>b` would read `ab`: they do not come at all."""
    hidden = engine.tokenizer.token_to_id("<|im_start|>")
    ends = {engine.tokenizer.token_to_id(token) for token in ("[SEP]", "<|im_end|>")}
    assert hidden in engine.unread and not ends & set(engine.unread)
    likely = {str(hidden): 100.0}
    assert said(engine, ASKED[0], logit_bias=likely) == "", "the test does not make the model say it"
    assert said(engine, ASKED[0], logit_bias=likely, banned_words=["ab"]) != ""


def test_words_and_stop_strings_bind_together(engine: Generator) -> None:
    word = said(engine, ASKED[0], banned_words=NEVER_SAID)[4:6]
    bound = said(engine, ASKED[0], banned_words=[word])
    stop = bound[len(bound) // 2 :][:2]
    assert word not in bound and stop
    assert said(engine, ASKED[0], banned_words=[word], stop=stop) == bound[: bound.index(stop)]


@pytest.mark.parametrize(
    ("asked", "said_of_it"),
    [
        ({"banned_words": [""]}, "an empty one"),
        ({"banned_words": ["x" * (CHARACTERS + 1)]}, f"{CHARACTERS + 1} characters"),
        ({"banned_words": [chr(0x4E00 + number) * 16 for number in range(WORDS)]}, "64 different beginnings"),
        ({"banned_words": ["x"], "grammar": 'root ::= "x"'}, "without grammar"),
        ({"banned_words": ["x"], "response_format": {"type": "json_object"}}, "without grammar and response_format"),
    ],
)
def test_what_cannot_be_banned_is_refused(asked: dict[str, Any], said_of_it: str) -> None:
    request = ChatRequest.model_validate({"model": "talk", "messages": [{"role": "user", "content": "x"}], **asked})
    with pytest.raises(ApiError, match=said_of_it) as raised:
        request.sampling(400)
    assert raised.value.status == 400 and raised.value.param == "banned_words"


def test_as_many_words_as_are_taken_are_banned_in_time(engine: Generator, tmp_path: Path) -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh好很", k=CHARACTERS // WORDS)) for _ in range(WORDS)]
    assert len(grammar_without(tuple(words))) < 4_000_000
    answer = said(engine, ASKED[0], banned_words=words)
    assert answer == said(engine, ASKED[0], banned_words=NEVER_SAID) and "bad_words" not in answer
    vllm = said(engine, ASKED[0], bad_words=[answer[3:5]])
    assert answer[3:5] not in vllm
