"""`/v1/classify`: the answer's shape, what is refused and why, and the line that each answer leaves in the log."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_assets.serving.app import create_app
from llm_assets.serving.engine import OnnxClassifier
from llm_assets.serving.reconciler import Reconciler
from llm_assets.serving.request_log import log_folder
from llm_assets.serving.wire import INPUT_LIMIT
from llm_assets_tests.serving.conftest import ask, eventually, local_client
from llm_assets_tests.serving.tiny import MAX_LENGTH, deploy


def test_the_answer_has_the_shape_of_vllms_classify(client: TestClient) -> None:
    answer = client.post("/v1/classify", json={"model": "tiny", "input": ["good", "bad bad"]}).json()
    assert answer["id"].startswith("classify-") and answer["object"] == "list" and answer["model"] == "tiny"
    assert [(entry["index"], entry["label"], entry["num_classes"]) for entry in answer["data"]] == [(0, "positive", 2), (1, "negative", 2)]
    assert all(sum(entry["probs"]) == pytest.approx(1) for entry in answer["data"])
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7, "completion_tokens": 0, "prompt_tokens_details": None}
    assert answer["release"] == "tiny-1"


def test_several_labels_and_a_number_are_answered_in_the_same_shape(tmp_path: Path) -> None:
    deploy(tmp_path, 1, chain="several", problem="multi_label")
    deploy(tmp_path, 1, chain="number", problem="regression")  # a network of two outputs, of which the first is the number
    with TestClient(create_app(tmp_path)) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        several = client.post("/v1/classify", json={"model": "several", "input": ["good", "unheard"]}).json()["data"]
        [number] = client.post("/v1/classify", json={"model": "number", "input": "bad"}).json()["data"]
    assert [entry["label"] for entry in several] == ["positive", "negative|positive"]  # one half each says both
    assert several[0]["probs"][1] == pytest.approx(1 / (1 + math.exp(-2 / 3)))
    assert float(number["label"]) == number["probs"][0] == pytest.approx(2 / 3)


def test_one_text_needs_no_list(client: TestClient) -> None:
    answer = client.post("/v1/classify", json={"model": "tiny", "input": "我 喜欢", "user": "passed over"}).json()
    assert [entry["label"] for entry in answer["data"]] == ["positive"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "other", "input": "good"}, 404, "the models here: tiny"),
        ({"model": "tiny", "input": ""}, 400, "empty text at index 0"),
        ({"model": "tiny", "input": ["good", " \n"]}, 400, "empty text at index 1"),
        ({"model": "tiny", "input": []}, 400, "at least one text"),
        ({"model": "tiny", "input": ["good"] * (INPUT_LIMIT + 1)}, 400, f"the limit is {INPUT_LIMIT}"),
        ({"model": "tiny", "input": 7}, 400, "input"),
        ({"model": "tiny", "input": "\ud800"}, 400, "lone surrogate"),
        ({"model": "tiny", "input": ["good", "\udfff"]}, 400, "lone surrogate"),
        ({"model": "\ud800", "input": "good"}, 400, "lone surrogate"),
        ({"input": "good"}, 400, "model"),
        ([], 400, "the body"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(client: TestClient, body: object, status: int, words: str) -> None:
    response = client.post("/v1/classify", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] == status
    assert words in error["message"]


@pytest.mark.parametrize(
    ("content", "kind"), [(b"{", "application/json"), (b"good", "text/plain"), (b"\xff\xfe", "application/json"), (b"", "application/json")]
)
def test_what_is_not_json_is_refused(client: TestClient, content: bytes, kind: str) -> None:
    response = client.post("/v1/classify", content=content, headers={"Content-Type": kind})
    assert response.status_code == 400
    assert response.json()["error"]["message"]


characters = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates too


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | characters,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(characters, inner, max_size=3),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=anything | st.fixed_dictionaries({"model": st.just("tiny") | characters, "input": anything}))
def test_no_body_makes_the_gateway_fail(client: TestClient, body: object) -> None:
    response = client.post("/v1/classify", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 400, 404)
    assert ("data" in response.json()) == (response.status_code == 200)


def test_a_text_over_the_models_length_is_answered(client: TestClient) -> None:
    answer = ask(client, "good " * 10_000).json()
    assert answer["usage"]["prompt_tokens"] == MAX_LENGTH and answer["data"][0]["label"] == "positive"


def test_the_log_holds_each_answer_and_no_raw_text(client: TestClient, home: Path) -> None:
    text = "good says secret@example.org"
    answer = client.post("/v1/classify", json={"model": "tiny", "input": text}).json()
    content = str(eventually(lambda: answer["id"] in (content := "".join(path.read_text() for path in log_folder(home).glob("tiny/*"))) and content))
    line = next(line for line in map(json.loads, content.splitlines()) if line["id"] == answer["id"])
    assert line["release"] == "tiny-1" and line["labels"] == ["positive"] and line["probs"] == [answer["data"][0]["probs"]]
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert line["texts"] == [{"characters": len(text), "sha256": digest, "masked": "good says [EMAIL]"}]
    assert line["chain"] == "tiny" and line["client"] == "anonymous"
    assert line["milliseconds"] > 0
    assert "secret" not in content


def test_once_nothing_can_be_recorded_nothing_is_answered_and_what_was_answered_is_kept(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    log_folder(tmp_path).write_text("a file where the folder should be")
    answered = list[str]()

    def response(client: TestClient) -> Any:
        asked = client.post("/v1/classify", json={"model": "tiny", "input": "good"})
        answered.extend([asked.json()["id"]] if asked.status_code == 200 else [])
        return asked.status_code != 200 and asked

    with TestClient(create_app(tmp_path)) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        refused: Any = eventually(lambda: response(client))
        assert refused.status_code == 503 and "recorded" in refused.json()["error"]["message"]
        log_folder(tmp_path).unlink()
        eventually(lambda: not response(client))
    assert {line["id"] for path in log_folder(tmp_path).glob("tiny/*") for line in map(json.loads, path.read_text().splitlines())} == set(answered)


def test_an_engine_that_fails_shows_no_trace_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(OnnxClassifier):
        def probabilities(self, encoded: Any) -> list[list[float]]:
            if len(encoded) > 1:
                raise RuntimeError("secret detail")
            return super().probabilities(encoded)

    deploy(tmp_path, 1)
    monkeypatch.setattr(Reconciler.__init__, "__defaults__", (Failing,))
    with local_client(tmp_path) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        response = ask(client, ["good", "bad"])
        assert response.status_code == 500 and "secret" not in response.text and "Traceback" not in response.text
        assert response.json()["error"]["code"] == 500 and response.headers["x-content-type-options"] == "nosniff"
        assert ask(client).status_code == 200
