"""`/v1/annotations`: the queue goes to each annotator, text by text, and what they say is on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from llm_assets.serving.app import create_app
from llm_assets.serving.keys import add_key
from llm_assets.serving.labelling import Queue, Task, dequeue, enqueue, labels_journal, read_labels
from llm_assets_tests.serving.conftest import local_client

PATH = "/v1/annotations/tiny"


def tasks(count: int, first: int = 0) -> list[Task]:
    return [Task(f"classify-{number}", 0, f"text {number}", "positive", "tiny-1", "random") for number in range(first, first + count)]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    enqueue(tmp_path, "tiny", Queue(tasks(3), ["negative", "positive"], "single_label"))
    with local_client(tmp_path) as client:
        yield client


def seen(client: TestClient, annotator: str) -> dict[str, Any]:
    return dict(client.get(PATH, params={"annotator": annotator}).json())


def say(client: TestClient, annotator: str, number: int, label: str | None) -> Any:
    return client.post(PATH, json={"annotator": annotator, "id": f"classify-{number}", "index": 0, "label": label})


def test_each_annotator_gets_every_text_in_the_same_order(client: TestClient, tmp_path: Path) -> None:
    assert client.get("/v1/annotations").json() == {"chains": ["tiny"]}
    first = seen(client, "Ann")
    assert first["labels"] == ["negative", "positive"] and first["left"] == 3
    assert first["tasks"] == [{"id": "classify-0", "index": 0, "text": "text 0", "answered": "positive", "reason": "random"}]
    assert say(client, "Ann", 0, "negative").json()["tasks"][0]["id"] == "classify-1"
    after = say(client, "Ann", 1, None).json()  # skipped
    assert after["tasks"][0]["id"] == "classify-2" and after["left"] == 1 and after["annotators"] == {"Ann": 1}
    assert say(client, "Ann", 2, "positive").json()["tasks"] == []
    assert seen(client, "李")["tasks"][0]["id"] == "classify-0" and seen(client, "李")["left"] == 3
    say(client, "李", 0, "negative")
    assert say(client, "李", 2, "negative").json()["agreements"] == [{"annotators": ["Ann", "李"], "texts": 2, "kappa": 0.0}]
    assert say(client, "李", 2, "positive").json()["agreements"][0]["kappa"] == 1.0  # the newer word counts
    assert read_labels(tmp_path, "tiny")["classify-2", 0].ballot == {"Ann": "positive", "李": "positive"}


def test_what_is_put_behind_comes_later_and_what_is_taken_is_asked_no_more(client: TestClient, tmp_path: Path) -> None:
    enqueue(tmp_path, "tiny", Queue(tasks(1, first=3), ["negative", "positive"], "single_label"))
    assert seen(client, "Ann")["left"] == 4
    dequeue(tmp_path, "tiny", [("classify-0", 0), ("classify-2", 0)])
    assert seen(client, "Ann")["tasks"][0]["id"] == "classify-1" and seen(client, "Ann")["left"] == 2
    assert say(client, "Ann", 0, "negative").status_code == 404


def test_a_line_that_a_crash_cut_off_costs_that_line_alone(client: TestClient, tmp_path: Path) -> None:
    say(client, "Ann", 0, "negative")
    path = labels_journal(tmp_path, "tiny").path
    path.write_bytes(path.read_bytes() + b'{"at": "2026-01-01T00:00:00+00:00", "id": "class')
    assert seen(client, "Ann")["left"] == 2
    assert say(client, "Ann", 1, "positive").json()["left"] == 1
    assert {key[0] for key in read_labels(tmp_path, "tiny")} == {"classify-0", "classify-1"}


@pytest.mark.parametrize(
    ("problem", "right", "wrong"),
    [
        ("single_label", ["positive"], ["", "splendid", "negative|positive"]),
        ("multi_label", ["", "negative", "negative|positive"], ["splendid"]),
        ("regression", ["2.5", "-1"], ["", "nan", "high"]),
    ],
)
def test_a_label_is_one_of_the_queues(tmp_path: Path, problem: str, right: list[str], wrong: list[str]) -> None:
    enqueue(tmp_path, "tiny", Queue(tasks(1), ["negative", "positive"], problem))
    with local_client(tmp_path) as client:
        assert [say(client, "Ann", 0, label).status_code for label in right] == [200] * len(right)
        assert [say(client, "Ann", 0, label).status_code for label in wrong] == [400] * len(wrong)
    assert read_labels(tmp_path, "tiny")["classify-0", 0].labels == {"Ann": right[-1]}


@pytest.mark.parametrize("annotator", ["", " ", "x" * 65, "a\nb", " Ann"])
def test_an_annotator_has_a_name(client: TestClient, annotator: str) -> None:
    assert client.get(PATH, params={"annotator": annotator}).status_code == 400
    assert say(client, annotator, 0, "negative").status_code == 400


def test_a_chain_without_a_queue_says_how_to_fill_it(client: TestClient) -> None:
    response = client.get("/v1/annotations/other", params={"annotator": "Ann"})
    assert response.status_code == 404 and "llm-assets annotate queue other" in response.json()["error"]["message"]


def test_it_is_for_operators(client: TestClient, tmp_path: Path) -> None:
    with TestClient(create_app(tmp_path), "http://192.0.2.1", client=("192.0.2.7", 5000)) as stranger:
        assert [stranger.get(path).status_code for path in ("/v1/annotations", f"{PATH}?annotator=a", "/v1/status", "/label")] == [403, 403, 403, 200]
    asker, operator = add_key(tmp_path, "asker", ["ask", "feedback"]), add_key(tmp_path, "operator", ["operate"])
    with local_client(tmp_path) as client:
        assert [client.get("/v1/annotations", headers={"Authorization": f"Bearer {key}"}).status_code for key in (asker, operator)] == [403, 200]
        client.headers["Authorization"] = f"Bearer {operator}"
        say(client, "Ann", 0, "negative")
    [line] = labels_journal(tmp_path, "tiny").entries()
    assert (line["annotator"], line["client"]) == ("Ann", "operator")
