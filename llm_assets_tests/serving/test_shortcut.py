from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from llm_assets.serving import shortcut
from llm_assets.serving.wire import SESSION_LENGTH
from llm_assets_tests.serving.conftest import answers, eventually, local_client
from llm_assets_tests.serving.tiny import deploy

RIGHT = {"model": "tiny", "input": ["good", "bad"]}
OURS = ("id", "created")  # of each answer alone


@pytest.fixture
def client(tmp_path: Path) -> Any:
    deploy(tmp_path, 1)
    with local_client(tmp_path) as client:
        eventually(lambda: answers(client, "/readyz"))
        yield client


def both_ways(client: TestClient, monkeypatch: pytest.MonkeyPatch, **request: Any) -> list[tuple[Any, ...]]:
    """Status, body and headers by the shortcut and by FastAPI's way."""
    found = []
    for path in (shortcut.PATH, "/nowhere"):
        monkeypatch.setattr(shortcut, "PATH", path)
        answer = client.post("/v1/classify", **request)
        found.append((answer.status_code, {key: value for key, value in answer.json().items() if key not in OURS}, dict(answer.headers)))
    return found


@pytest.mark.parametrize(
    "request_",
    [
        {"json": RIGHT},
        {"json": RIGHT, "headers": {"X-Session-Id": "somebody"}},
        {"json": RIGHT | {"unknown": 1, "input": "good"}},
        {"json": RIGHT | {"model": "other"}},
        {"json": RIGHT | {"input": []}},
        {"json": RIGHT | {"input": [7]}},
        {"json": RIGHT, "headers": {"X-Session-Id": "x" * (SESSION_LENGTH + 1)}},
        {"content": b'{"model": "tiny", "input": "\\ud800"}', "headers": {"Content-Type": "application/json"}},
        {"content": b'{"model": "tiny", ', "headers": {"Content-Type": "application/json"}},
        {"content": b'{"model": "tiny", "input": "good"}', "headers": {"Content-Type": "text/plain"}},
        {"content": b""},
    ],
)
def test_both_ways_say_the_same(client: TestClient, monkeypatch: pytest.MonkeyPatch, request_: dict[str, Any]) -> None:
    short, long = both_ways(client, monkeypatch, **request_)
    assert short == long


def test_a_right_request_never_meets_the_router(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[str] = []
    router = client.app.router  # type: ignore[attr-defined]
    real = type(router).__call__

    async def noting(self: Any, scope: Any, receive: Any, send: Any) -> None:
        met.append(scope["path"])
        await real(self, scope, receive, send)

    monkeypatch.setattr(type(router), "__call__", noting)
    assert client.post("/v1/classify", json=RIGHT).status_code == 200 and met == []
    assert client.post("/v1/classify", json={}).status_code == 400 and met == ["/v1/classify"]
