"""Under pressure: bodies that are too long, two hundred at once, a full queue, waits without end, clients that hang up."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, NamedTuple

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from llm_assets.serving import batching
from llm_assets.serving.app import BODY_LIMIT, create_app
from llm_assets.serving.engine import OnnxClassifier
from llm_assets.serving.ports import bind
from llm_assets.serving.reconciler import PROBE, Reconciler
from llm_assets_tests.serving.conftest import SECONDS, answers, eventually, gateway
from llm_assets_tests.serving.tiny import deploy


def test_a_long_body_is_refused_declared_or_not(client: TestClient) -> None:
    body = json.dumps({"model": "tiny", "input": "x" * BODY_LIMIT}).encode()
    headers = {"Content-Type": "application/json"}
    for content in (body, iter([body[: BODY_LIMIT // 2], body[BODY_LIMIT // 2 :]])):
        response = client.post("/v1/classify", content=content, headers=headers)
        assert response.status_code == 413
        assert str(BODY_LIMIT) in response.json()["error"]["message"]


def test_ten_megabytes_are_refused_before_they_are_read(home: Path) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(160):
            sent += 1
            yield b"x" * (1 << 16)

    with gateway(home) as (client, _):
        try:
            status = client.post("/v1/classify", content=body(), headers={"Content-Type": "application/json"}).status_code
        except httpx.WriteError:
            status = 413  # it answered and hung up while we were still sending
        assert status == 413 and client.get("/healthz").status_code == 200
        assert client.post("/v1/classify", content=b"x" * (10 << 20)).status_code == 413


def test_two_hundred_at_once_are_all_answered(home: Path) -> None:
    async def together(url: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, limits=httpx.Limits(max_connections=200)) as client:
            questions = [{"model": "tiny", "input": ["good", "bad"][number % 2]} for number in range(200)]
            return await asyncio.gather(*(client.post("/v1/classify", json=question) for question in questions))

    with gateway(home) as (client, _):
        found = asyncio.run(together(str(client.base_url)))
        labels = [response.json()["data"][0]["label"] for response in found]
    assert labels == ["positive", "negative"] * 100
    assert len({response.json()["id"] for response in found}) == 200


class Stuck(OnnxClassifier):
    """An engine that works at one batch until it is told to end, and counts the texts that it reads."""

    may_end = threading.Event()
    texts: ClassVar[list[str]] = []

    def encode(self, texts: Sequence[str]) -> list[list[list[int]]]:
        if texts != [PROBE]:
            Stuck.texts += texts
            assert Stuck.may_end.wait(SECONDS)
        return super().encode(texts)


class Asking(NamedTuple):
    """A gateway in a thread of this process, whose engine is stuck, asked over real sockets."""

    app: FastAPI
    client: httpx.Client
    pool: ThreadPoolExecutor

    def ask(self, text: str) -> Future[httpx.Response]:
        return self.pool.submit(self.client.post, "/v1/classify", json={"model": "tiny", "input": text})

    def connect(self, text: str) -> socket.socket:
        """Ask and do not wait for the answer."""
        body = json.dumps({"model": "tiny", "input": text}).encode()
        head = f"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection = socket.create_connection(("127.0.0.1", int(self.client.base_url.port or 0)))
        connection.sendall(head.encode() + body)
        return connection

    @property
    def waiting(self) -> float:
        """Characters in the queue, as the metrics tell."""
        found = re.search(r"^llm_assets_queue_characters ([\d.e+]+)$", self.client.get("/metrics").text, re.MULTILINE)
        assert found
        return float(found[1])


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    deploy(tmp_path, 1)
    Stuck.may_end.clear()
    Stuck.texts.clear()
    monkeypatch.setattr(Reconciler.__init__, "__defaults__", (Stuck,))
    listener, app = bind("127.0.0.1", 0, "test", "none"), create_app(tmp_path)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    serving.start()
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=SECONDS) as client, ThreadPoolExecutor(4) as pool:
            eventually(lambda: answers(client, "/readyz"))
            yield Asking(app, client, pool)
            Stuck.may_end.set()
    finally:
        Stuck.may_end.set()
        server.should_exit = True
        serving.join()


def test_a_full_queue_answers_429_at_once(stuck: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "QUEUE", 200)
    first = stuck.ask("first")
    eventually(lambda: Stuck.texts)
    second = stuck.ask("second")
    eventually(lambda: stuck.waiting > 100)
    refused = stuck.ask("third " * 30).result()
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    Stuck.may_end.set()
    assert first.result().status_code == second.result().status_code == 200
    assert stuck.waiting == 0 and Stuck.texts == ["first", "second"]


def test_a_request_that_waits_too_long_gets_504(stuck: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stuck.app.state.gateway.classifications._patience, "_timeout", 0.2)
    response = stuck.ask("first").result()
    assert response.status_code == 504 and "within 0.2 s" in response.json()["error"]["message"]


def test_a_client_that_hangs_up_frees_its_place(stuck: Asking) -> None:
    """Behind a request that the engine is at work on another one hangs up, and the engine never sees it."""
    first = stuck.ask("first")
    eventually(lambda: Stuck.texts)
    alone = stuck.waiting
    gone, stays = stuck.connect("gone!"), stuck.ask("stays")
    eventually(lambda: stuck.waiting == 3 * alone)
    gone.close()
    eventually(lambda: stuck.waiting == 2 * alone)
    Stuck.may_end.set()
    assert first.result().status_code == stays.result().status_code == 200
    assert Stuck.texts == ["first", "stays"]
