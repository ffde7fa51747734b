from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import math
import re
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_assets.serving import batching
from llm_assets.serving.engine import OnnxClassifier
from llm_assets.serving.feedback import read_votes
from llm_assets.serving.gateway import BODY_LIMIT, create_app
from llm_assets.serving.ports import bind
from llm_assets.serving.reconciler import PROBE, Reconciler
from llm_assets.serving.state import gateway_state
from llm_assets.serving.wire import INPUT_LIMIT
from llm_assets_tests.serving.conftest import SECONDS, answers, eventually, gateway, local_client
from llm_assets_tests.serving.tiny import LABELS, MAX_LENGTH, deploy


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    deploy(home, 1)
    return home


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    with local_client(home) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        assert ask(client).status_code == 200  # starts the recorder, which ends with the last of the tests
        yield client


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


def test_a_long_body_is_refused_declared_or_not(client: TestClient) -> None:
    body = json.dumps({"model": "tiny", "input": "x" * BODY_LIMIT}).encode()
    headers = {"Content-Type": "application/json"}
    for content in (body, iter([body[: BODY_LIMIT // 2], body[BODY_LIMIT // 2 :]])):
        response = client.post("/v1/classify", content=content, headers=headers)
        assert response.status_code == 413
        assert str(BODY_LIMIT) in response.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/v1/classify", 405)])
def test_other_paths_answer_in_the_same_shape(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status and response.json()["error"]["code"] == status


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


def test_the_log_holds_each_answer_and_no_raw_text(client: TestClient, home: Path) -> None:
    text = "good says secret@example.org"
    answer = client.post("/v1/classify", json={"model": "tiny", "input": text}).json()
    content = "".join(path.read_text() for path in (home / "serving" / "log" / "tiny").iterdir())
    line = next(line for line in map(json.loads, content.splitlines()) if line["id"] == answer["id"])
    assert line["release"] == "tiny-1" and line["labels"] == ["positive"] and line["probs"] == [answer["data"][0]["probs"]]
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert line["texts"] == [{"characters": len(text), "sha256": digest, "masked": "good says [EMAIL]"}]
    assert line["chain"] == "tiny" and line["client"] == "anonymous"
    assert line["milliseconds"] > 0
    assert "secret" not in content


def test_what_cannot_be_recorded_is_not_answered(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    (tmp_path / "serving" / "log").write_text("a file where the folder should be")
    with TestClient(create_app(tmp_path)) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        response = client.post("/v1/classify", json={"model": "tiny", "input": "good"})
    assert response.status_code == 503 and "recorded" in response.json()["error"]["message"]


def test_a_chain_without_a_release_that_loads_is_not_ready(tmp_path: Path) -> None:
    (deploy(tmp_path, 1).directory / "model.onnx").unlink()
    with TestClient(create_app(tmp_path)) as client:
        eventually(lambda: client.get("/readyz").json()["chains"])
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        response = client.post("/v1/classify", json={"model": "tiny", "input": "good"})
        assert response.status_code == 503 and "model.onnx is missing" in response.json()["error"]["message"]


def test_models_and_page(client: TestClient) -> None:
    models = client.get("/v1/models").json()["data"]
    assert [(model["id"], model["release"], model["labels"]) for model in models] == [("tiny", "tiny-1", LABELS)]
    page, script = client.get("/").text, client.get("/page.js").text
    assert "http" not in page + script + client.get("/page.css").text and "分类" in script


def test_releases_swap_under_load_without_a_failed_request(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    seen: list[tuple[str, str]] = []
    failures: list[object] = []
    done = threading.Event()

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, trust_env=False) as client:
            while not done.is_set():
                response = client.post("/v1/classify", json={"model": "tiny", "input": ["good", "good good"]})
                if response.status_code == 200:
                    seen.append((response.json()["release"], response.json()["data"][0]["label"]))
                else:
                    failures.append(response.text)

    with gateway(tmp_path) as (client, _):
        threads = [threading.Thread(target=ask, args=(str(client.base_url),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: len(seen) > 20)
            deploy(tmp_path, 2, sign=-1)
            eventually(lambda: seen[-1][0] == "tiny-2")
            (deploy(tmp_path, 3).directory / "model.onnx").unlink()
            error = eventually(lambda: client.get("/readyz").json()["chains"]["tiny"]["error"])
            assert "tiny-3" in str(error) and client.get("/readyz").status_code == 200
            count = len(seen)
            eventually(lambda: len(seen) > count + 20)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert not failures
    assert set(seen) == {("tiny-1", "positive"), ("tiny-2", "negative")}
    assert seen[-1][0] == "tiny-2"


def test_the_engine_of_a_replaced_release_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[weakref.ref[OnnxClassifier]] = []
    load = OnnxClassifier.__init__

    def watched(engine: OnnxClassifier, *arguments: Any) -> None:
        loaded.append(weakref.ref(engine))
        load(engine, *arguments)

    def living() -> int:
        gc.collect()
        return sum(engine() is not None for engine in loaded)

    monkeypatch.setattr(OnnxClassifier, "__init__", watched)
    with TestClient(create_app(tmp_path)) as client:
        for number in (1, 2, 3):
            deploy(tmp_path, number)
            eventually(lambda number=number: [model["release"] for model in client.get("/v1/models").json()["data"]] == [f"tiny-{number}"])
            assert client.post("/v1/classify", json={"model": "tiny", "input": "good"}).status_code == 200
        assert len(loaded) == 3
        eventually(lambda: living() == 1)


def test_a_killed_gateway_resumes_and_one_data_root_has_one(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with gateway(tmp_path) as (client, process):
        eventually(lambda: (gateway_state(tmp_path) or {})["chains"])
        state = gateway_state(tmp_path)
        assert state and state["pid"] == process.pid and state["chains"]["tiny"]["live"] == "tiny-1"
        second = subprocess.run([sys.executable, "-m", "llm_assets.serving", "--port", "0", "--home", str(tmp_path)], capture_output=True, text=True)
        assert second.returncode == 1 and str(process.pid) in second.stderr and "already" in second.stderr
        third = subprocess.run(
            [sys.executable, "-m", "llm_assets.serving", "--port", str(state["port"]), "--home", str(tmp_path / "b")], capture_output=True, text=True
        )
        assert third.returncode == 1 and str(state["port"]) in third.stderr and f"process {process.pid}" in third.stderr
    assert gateway_state(tmp_path) is None
    with gateway(tmp_path) as (client, process):
        assert client.post("/v1/classify", json={"model": "tiny", "input": "good"}).json()["release"] == "tiny-1"
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    assert not (tmp_path / "serving" / "gateway.json").exists()


def ask(client: TestClient, text: str | list[str] = "good") -> httpx.Response:
    return client.post("/v1/classify", json={"model": "tiny", "input": text})


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


def test_a_text_over_the_models_length_is_answered(client: TestClient) -> None:
    answer = ask(client, "good " * 10_000).json()
    assert answer["usage"]["prompt_tokens"] == MAX_LENGTH and answer["data"][0]["label"] == "positive"


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
    monkeypatch.setattr(stuck.app.state.gateway._patience, "_timeout", 0.2)
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


def test_the_metrics_count_what_happened(client: TestClient) -> None:
    def value(series: str) -> float:
        found = re.search(rf"^{re.escape(series)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    good, lost = (
        'llm_assets_requests_total{chain="tiny",release="tiny-1",status="200"}',
        'llm_assets_requests_total{chain="",release="",status="404"}',
    )
    before = value(good), value(lost), value('llm_assets_tokens_total{chain="tiny"}'), value("llm_assets_log_group_requests_count")
    ask(client)
    client.post("/v1/classify", json={"model": "nobody's", "input": "good"})
    after = value(good), value(lost), value('llm_assets_tokens_total{chain="tiny"}'), value("llm_assets_log_group_requests_count")
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 3, 1]
    assert value('llm_assets_request_seconds_count{chain="tiny"}') >= 1 and "nobody" not in client.get("/metrics").text
