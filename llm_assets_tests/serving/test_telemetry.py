"""Spans: sent over real OTLP where the environment names a receiver, with nothing of what users wrote; none otherwise."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llm_assets.serving.app import create_app
from llm_assets.serving.telemetry import ENDPOINTS, Traced
from llm_assets_tests.serving.conftest import ask, eventually, local_client
from llm_assets_tests.serving.tiny import deploy

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Receiver(ThreadingHTTPServer):
    """An OTLP collector that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths: list[str] = []
        self.bodies: list[bytes] = []

    def spans(self) -> dict[str, dict[str, Any]]:
        """The attributes of each span by its name, with its parent and the service's name."""
        found = {}
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    values = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
                    found[span.name] = {**values, "service": service, "trace": span.trace_id.hex(), "failed": span.status.code == 2}
        return found


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        self.server.bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENDPOINTS, "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_a_span_a_request_and_no_word_of_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(tmp_path, 1)
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.server_port}")
        with local_client(tmp_path) as client:
            eventually(lambda: client.get("/readyz").status_code == 200)
            client.headers["traceparent"] = PARENT
            assert ask(client, "good secretword").status_code == 200
            assert ask(client, "").status_code == 400
            client.get("/secretpath", headers={"User-Agent": "secretagent"})
            client.get("/artifacts/secretlink/aaa/pages/secret.html")
        found = receiver.spans()  # the last of them leave when the gateway ends
    assert set(receiver.paths) == {"/v1/traces"} and not any(b"secret" in body for body in receiver.bodies)
    artifacts = found["GET /artifacts/{link}/{fingerprint}/{folder}/{name}"]
    assert artifacts["http.response.status_code"] == 404 and "GET /readyz" in found and found["GET no route"]["http.response.status_code"] == 404
    asked = found["POST /v1/classify"]
    assert asked["trace"] == PARENT.split("-")[1] and asked["service"] == "llm_assets.gateway"
    assert asked["http.route"] == "/v1/classify" and asked["http.response.status_code"] == 400  # the second of the two, which found no chain


def test_chain_release_and_tokens_and_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(tmp_path, 1)
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://127.0.0.1:{receiver.server_port}/v1/traces")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "reviews")
        with local_client(tmp_path) as client:
            assert client.get("/readyz").status_code in (200, 503)
            eventually(lambda: client.get("/v1/models").json()["data"])
            ask(client, "good")
        found = receiver.spans()
    asked = found["POST /v1/classify"]
    assert (asked["llm_assets.chain"], asked["llm_assets.release"], asked["llm_assets.tokens"]) == ("tiny", "tiny-1", 3)
    assert asked["service"] == "reviews" and not asked["failed"]


@pytest.mark.parametrize("variables", [{}, {ENDPOINTS[0]: "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, {ENDPOINTS[0]: ""}])
def test_without_a_receiver_no_request_passes_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Traced not in [each.cls for each in create_app(tmp_path).user_middleware]
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:9")
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    assert create_app(tmp_path).user_middleware[0].cls is Traced


def test_without_a_receiver_the_sdk_is_not_loaded(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from llm_assets.serving.app import create_app; create_app(Path(sys.argv[1])); "
    loaded = subprocess.run(
        [sys.executable, "-c", script + "print('opentelemetry.sdk' in sys.modules)", str(tmp_path)], capture_output=True, text=True
    )
    assert loaded.stdout.strip() == "False", loaded.stderr


def test_a_receiver_that_is_away_fails_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(tmp_path, 1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with local_client(tmp_path) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        assert ask(client).status_code == 200
