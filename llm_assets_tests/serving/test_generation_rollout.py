"""Two releases of a decoder side by side: a canary split by request, one that dies, a shadow, a rollback."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_assets.serving import completions
from llm_assets.serving.events import read_events
from llm_assets.serving.generation import Generator
from llm_assets.serving.rollback import roll_back_by_hand
from llm_assets.serving.rollout import READ, Apart, Plan, Rollout
from llm_assets.serving.router import Router
from llm_assets.serving.state import desired_path, read_desired, rollout_of
from llm_assets_tests.serving.conftest import eventually, gateway, local_client
from llm_assets_tests.serving.talking import deploy, roll_out

FOREVER = 1e9
PLAN = {"step_seconds": FOREVER, "max_error_rate": 1.0, "max_p99_ms": FOREVER, "max_extra_disagreement": 1.0}


def state(client: httpx.Client) -> str:
    return str(client.get("/readyz").json()["chains"]["talk"]["state"])


def ask(client: httpx.Client, session: str, stream: bool = False) -> str:
    """The release that answered."""
    body = {"model": "talk", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2, "temperature": 0, "stream": stream}
    response = client.post("/v1/chat/completions", json=body, headers={"X-Session-Id": session})
    assert response.status_code == 200, response.text
    return next(name for name in ("talk-1", "talk-2") if f'"release":"{name}"' in response.text)


def test_a_canary_takes_its_share_and_a_rollback_takes_it_back(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with gateway(tmp_path) as (client, _):
        client.timeout = httpx.Timeout(60)
        roll_out(tmp_path, 2, Plan(steps=(50.0, 100.0), **PLAN), seed=1)
        eventually(lambda: state(client) == "canary")
        answered = [ask(client, str(number)) for number in range(24)]
        assert min(Counter(answered)["talk-1"], Counter(answered)["talk-2"]) >= 4
        assert [ask(client, str(number), stream=True) for number in range(6)] == answered[:6]  # a session keeps its release
        roll_back_by_hand(tmp_path, "talk", "talk-1", "tester", "")
        eventually(lambda: state(client) == "full")
        assert {ask(client, str(number)) for number in range(6)} == {"talk-1"}


def test_a_shadow_hears_every_request_and_takes_over(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with gateway(tmp_path) as (client, _):
        client.timeout = httpx.Timeout(60)
        plan = {**PLAN, "step_seconds": 0.0}
        roll_out(tmp_path, 2, Plan(steps=(100.0,), shadow=True, step_requests=2, minimum_requests=1, **plan), seed=1)
        eventually(lambda: state(client) == "shadow")
        eventually(lambda: ask(client, "one") == "talk-2")
    rollout = rollout_of(tmp_path, read_desired(desired_path(tmp_path, "talk")))
    assert rollout and not rollout.reason


def test_the_time_of_a_canary_begins_with_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others ask of another adapter is no slowness of its own."""
    told, generate, queue = list[float](), Generator.generate, 0.2

    async def in_its_turn(engine: Generator, *asked: Any) -> AsyncGenerator[list[dict[str, Any]]]:
        await asyncio.sleep(queue)
        async with aclosing(generate(engine, *asked)) as events:
            async for event in events:
                yield event

    deploy(tmp_path, 1)
    with local_client(tmp_path) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        roll_out(tmp_path, 2, Plan(steps=(100.0,), **PLAN), seed=1)
        eventually(lambda: state(client) == "canary")
        monkeypatch.setattr(Generator, "generate", in_its_turn)
        monkeypatch.setattr(Router, "_told", lambda router, pair, failed, milliseconds: told.append(milliseconds))
        began = time.perf_counter()
        assert ask(client, "one") == "talk-2"
        whole = 1000 * (time.perf_counter() - began)
    assert len(told) == 1 and 0 < told[0] <= whole - 1000 * queue


@pytest.fixture
def reading_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completions, "SHARE", 1)


WRITES = 0  # the seed of a decoder whose likeliest answer is characters, not half of some: it reads as it was written
OTHER = 2


def judged(home: Path, stable: int, seed: int, *, shadow: bool = False) -> tuple[Rollout, list[dict[str, Any]]]:
    """How the rollout of a decoder of ``seed`` beside that of another one ends, and its events."""
    deploy(home, 1, stable)
    limits = {**PLAN, "step_seconds": 0.0, "max_extra_disagreement": 0.1, "expected_disagreement": 0.05, "prediction": "made up", "of_replies": True}
    with local_client(home) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        roll_out(home, 2, Plan(steps=(100.0,), shadow=shadow, step_requests=60, **limits), seed=seed)
        eventually(lambda: state(client) in ("shadow", "canary"))
        stage, number = state(client), 0
        while state(client) == stage:
            ask(client, str(number), stream=bool(number % 2))
            number += 1
            assert number < 500
        rollout = rollout_of(home, read_desired(desired_path(home, "talk")))
    assert rollout
    return rollout, [event for event in read_events(home, "talk") if "compared" in event]


@pytest.mark.parametrize("shadow", [False, True])
def test_a_release_whose_replies_the_other_would_not_give_is_taken_back(tmp_path: Path, reading_always: None, shadow: bool) -> None:
    stable, candidate = (WRITES, OTHER) if shadow else (OTHER, WRITES)  # the one is heard, the other one reads
    rollout, events = judged(tmp_path, stable, candidate, shadow=shadow)
    assert rollout.stage == "rolled_back" and "bits per byte apart from the other release's, the gate predicted 0.050 (made up)" in rollout.reason
    assert {event["kind"] for event in events} == {"rollback", "alert"} and all(event["compared"] >= READ for event in events)


def test_a_release_that_replies_as_the_other_would_goes_on(tmp_path: Path, reading_always: None) -> None:
    rollout, (event, *_) = judged(tmp_path, WRITES, WRITES)
    assert rollout.stage == "full" and event["compared"] >= READ and abs(event["different"] / event["bytes"]) < 0.01


def test_reading_takes_a_tenth_of_the_time_at_most_and_no_answer_that_was_given_a_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[str]()

    async def slowly(answer: Any, reader: Any) -> Apart:
        read.append(answer.text)
        await asyncio.sleep(0.05)
        return Apart(0.0, 1)

    monkeypatch.setattr(completions, "apart", slowly)
    deploy(tmp_path, 1)
    with local_client(tmp_path) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        roll_out(tmp_path, 2, Plan(steps=(100.0,), expected_disagreement=0.0, of_replies=True, **PLAN), seed=1)
        eventually(lambda: state(client) == "canary")
        body = {"model": "talk", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
        assert client.post("/v1/chat/completions", json={**body, "presence_penalty": 1}).status_code == 200
        assert read == []
        began = time.monotonic()
        for number in range(12):
            ask(client, str(number))
        assert 1 <= len(read) <= 1 + (time.monotonic() - began) * completions.SHARE / 0.05
