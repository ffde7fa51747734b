from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from llm_assets.serving.access import SECURITY, role_of
from llm_assets.serving.app import create_app
from llm_assets.serving.keys import Role, add_key, keys_path
from llm_assets_tests.serving.conftest import local_client

Ask = Callable[..., int]
QUESTION = {"model": "none", "input": "good"}  # 404 from a gateway without models says that the door was open
VOTE = {"id": "classify-1", "rating": "up"}


def statuses(client: TestClient, key: str | None = None) -> dict[str, int]:
    """What a client gets of each role's routes."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {
        "open": client.get("/healthz", headers=headers).status_code,
        "ask": client.post("/v1/classify", json=QUESTION, headers=headers).status_code,
        "feedback": client.post("/v1/feedback", json=VOTE, headers=headers).status_code,
        "operate": client.get("/metrics", headers=headers).status_code,
        "unknown": client.get("/nowhere", headers=headers).status_code,
    }


def stranger(home: Path) -> TestClient:
    return TestClient(create_app(home), "http://192.0.2.1", client=("192.0.2.7", 5000), raise_server_exceptions=False)


def test_without_keys_this_machine_may_all_and_others_ask_and_vote(tmp_path: Path) -> None:
    with local_client(tmp_path) as client:
        assert statuses(client) == {"open": 200, "ask": 404, "feedback": 404, "operate": 200, "unknown": 404}
    with stranger(tmp_path) as client:
        assert statuses(client) == {"open": 200, "ask": 404, "feedback": 404, "operate": 403, "unknown": 403}
        assert "this machine alone" in client.get("/metrics").json()["error"]["message"]


@pytest.mark.parametrize(("host", "status"), [("evil.example", 403), ("127.0.0.1.evil.example", 403), ("localhost", 200), ("[::1]:8000", 200)])
def test_a_page_elsewhere_whose_name_was_made_to_mean_this_machine_may_not_operate(tmp_path: Path, host: str, status: int) -> None:
    with local_client(tmp_path) as client:
        assert client.get("/metrics", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["ask"], {"open": 200, "ask": 404, "feedback": 403, "operate": 403, "unknown": 403}),
        (["feedback"], {"open": 200, "ask": 403, "feedback": 404, "operate": 403, "unknown": 403}),
        (["operate"], {"open": 200, "ask": 403, "feedback": 403, "operate": 200, "unknown": 404}),
    ],
)
def test_with_keys_each_opens_its_roles_alone(tmp_path: Path, roles: list[Role], expected: dict[str, int]) -> None:
    key = add_key(tmp_path, "one", roles)
    closed = {"open": 200, "ask": 401, "feedback": 401, "operate": 401, "unknown": 401}
    with local_client(tmp_path) as client:  # this machine needs one too
        assert statuses(client, key) == expected
        assert statuses(client) == statuses(client, "lla_wrong") == closed
        response = client.post("/v1/classify", json=QUESTION, headers={"Authorization": "Bearer lla_wrong"})
        assert response.json()["error"]["message"] == "this key is unknown" and "Bearer" in response.headers["www-authenticate"]


def test_a_browser_may_send_the_key_as_a_password(tmp_path: Path) -> None:
    key = add_key(tmp_path, "one", ["operate"])
    with stranger(tmp_path) as client:
        assert client.get("/metrics", auth=("anyone", key)).status_code == 200
        for junk in ("Basic", "Basic !!", "Basic " + base64.b64encode(b"\xff\xfe").decode(), "Digest x", "Bearer", "Bearer \xff"):
            assert client.get("/metrics", headers={"Authorization": junk.encode("latin-1")}).status_code == 401


def test_a_key_has_its_rate(tmp_path: Path) -> None:
    key = add_key(tmp_path, "slow", ["ask"], per_minute=2)
    with stranger(tmp_path) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        assert [client.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
        refused = client.get("/v1/models")
        assert 1 <= int(refused.headers["retry-after"]) <= 30 and "2 times a minute" in refused.json()["error"]["message"]


def test_keys_that_cannot_be_read_open_nothing(tmp_path: Path) -> None:
    keys_path(tmp_path).parent.mkdir(parents=True)
    keys_path(tmp_path).write_text("{")
    with local_client(tmp_path) as client:
        assert statuses(client) == {"open": 200, "ask": 503, "feedback": 503, "operate": 503, "unknown": 503}


@pytest.mark.parametrize("path", ["/", "/healthz", "/nowhere", "/v1/classify", "/metrics", "/page.js"])
def test_every_answer_carries_the_security_headers_once(tmp_path: Path, path: str) -> None:
    with local_client(tmp_path) as client:
        headers = client.get(path).headers
    assert all(len(headers.get_list(name)) == 1 for name in SECURITY)
    assert "default-src 'none'" in headers["content-security-policy"] and "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]


def test_a_path_that_nobody_thought_of_is_the_operators() -> None:
    assert role_of("/v1/anything") == role_of("/v1/classify/") == role_of("/artifacts/a/b") == "operate"
    assert role_of("/") is None
