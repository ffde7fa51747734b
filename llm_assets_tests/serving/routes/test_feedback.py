"""`/v1/feedback`: a vote is bound to an answer, checked, and stored once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from llm_assets.serving.feedback import read_votes
from llm_assets_tests.serving.conftest import ask, eventually, local_client
from llm_assets_tests.serving.tiny import deploy


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"id": "classify-" + "0" * 32}, 404, "no answer classify-0"),
        ({"id": "../../etc/passwd"}, 404, "no answer"),
        ({"id": 7}, 400, "id"),
        ({"index": 2}, 400, "answers 2 texts"),
        ({"index": -1}, 400, "index"),
        ({"rating": "sideways"}, 400, "rating"),
        ({"rating": None, "comment": " \n"}, 400, "nothing is said"),
        ({"label": "splendid"}, 400, "label is not one of negative, positive"),
        ({"label": "\ud800"}, 400, "lone surrogate"),
        ({"comment": "x" * 2001}, 400, "comment"),
    ],
)
def test_a_wrong_vote_is_told_what_is_wrong(client: TestClient, change: dict[str, Any], status: int, words: str) -> None:
    vote = {"id": ask(client, ["good", "bad"]).json()["id"], "index": 1, "rating": "up", **change}
    response = client.post("/v1/feedback", content=json.dumps(vote), headers={"Content-Type": "application/json"})
    assert response.status_code == status and words in response.json()["error"]["message"]


def test_a_vote_is_stored_once_and_an_answer_is_known_after_a_restart(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with local_client(tmp_path) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        answer = ask(client).json()["id"]
    with local_client(tmp_path) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        vote = {"id": answer, "rating": "down", "label": "negative"}
        first, second = client.post("/v1/feedback", json=vote), client.post("/v1/feedback", json=vote)
        assert first.json() == {"id": answer, "index": 0, "already": False} and second.json()["already"]
    [stored] = read_votes(tmp_path, "tiny")
    assert (stored["id"], stored["rating"], stored["label"], stored["client"]) == (answer, "down", "negative", "anonymous")


@pytest.mark.parametrize(
    ("problem", "right", "wrong"),
    [("multi_label", ["negative", "negative|positive"], "negative|splendid"), ("regression", ["2.5", "-1"], "high"), ("regression", ["0"], "nan")],
)
def test_a_corrected_label_is_written_like_an_answer(tmp_path: Path, problem: str, right: list[str], wrong: str) -> None:
    deploy(tmp_path, 1, problem=problem)
    with local_client(tmp_path) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        answer = ask(client).json()["id"]
        assert [client.post("/v1/feedback", json={"id": answer, "label": label}).status_code for label in right] == [200] * len(right)
        assert client.post("/v1/feedback", json={"id": answer, "label": wrong}).status_code == 400
