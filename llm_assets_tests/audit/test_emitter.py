from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llm_assets.audit import emitter
from llm_assets.audit.emitter import Courier, Emitter
from llm_assets_tests.audit.test_openlineage import materializing

WRITERS = """
import sys
from pathlib import Path
from llm_assets.audit.emitter import _append
for number in range(200):
    _append(Path(sys.argv[1]), (sys.argv[2] * 20_000 + "\\n").encode())
"""


class Server(ThreadingHTTPServer):
    """A server of OpenLineage's interface that keeps what it gets, and answers as it is told."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.got: list[dict[str, Any]] = []
        self.answer = 201
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        assert self.path == "/api/v1/lineage"
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.answer == 201:
            self.server.got.append(content)
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.shutdown()
    one.server_close()


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE_DISABLED"):
        monkeypatch.delenv(name, raising=False)


def courier(told: Emitter) -> Courier:
    one = emitter._courier(told.folder, told.url)
    one.close(30)
    return one


def lines(told: Emitter) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(told.folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_events_stand_in_a_file_a_day_by_default(tmp_path: Path) -> None:
    told = Emitter(tmp_path, "reviews")
    assert told.emit(materializing("tokens").started()) is None
    assert told.emit(materializing("tokens").failed(ValueError("x"))) is None
    assert [event["eventType"] for event in lines(told)] == ["START", "FAIL"]
    assert [path.suffix for path in told.folder.iterdir()] == [".jsonl"]


def test_a_server_gets_every_event_in_order(tmp_path: Path, server: Server) -> None:
    told = Emitter(tmp_path, "reviews", server.url)
    for link in ("tokens", "tokenizer"):
        assert told.emit(materializing(link).started()) is None
        courier(told)
    assert server.got == lines(told) and len(server.got) == 2


def test_the_environment_names_a_server_as_everywhere(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", server.url)
    told = Emitter(tmp_path, "reviews")
    told.emit(materializing("tokens").started())
    courier(told)
    assert len(server.got) == 1
    for name in [name for name in emitter.os.environ if name.startswith("OPENLINEAGE__")]:  # the client sets them
        monkeypatch.delenv(name)


def test_a_server_that_is_away_is_warned_of_once_and_told_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(emitter, "AGAIN_SECONDS", 0.0)
    told = Emitter(tmp_path, "reviews", f"http://user:secret@127.0.0.1:{port}")
    warnings = []
    for _ in range(3):
        warnings.append(told.emit(materializing("tokens").started()))
        courier(told)
    warnings.append(told.emit(materializing("tokens").started()))
    said = [warning for warning in warnings if warning]
    assert len(said) == 1 and "sent later" in said[0] and "secret" not in said[0]
    courier(told)
    server = Server(port)
    told.emit(materializing("tokenizer").started())
    courier(told)
    assert server.got == lines(told) and len(server.got) == 5
    server.shutdown()
    server.server_close()


def test_an_event_that_the_server_refuses_does_not_hold_up_the_next(tmp_path: Path, server: Server) -> None:
    told = Emitter(tmp_path, "reviews", server.url)
    server.answer = 422
    told.emit(materializing("tokens").started())
    courier(told)
    server.answer = 201
    warning = told.emit(materializing("tokenizer").started())
    courier(told)
    assert warning and "refused" in warning
    assert [event["job"]["name"] for event in server.got] == ["reviews.tokenizer"]


def test_nothing_is_written_where_openlineage_is_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    told = Emitter(tmp_path, "reviews")
    assert told.emit(materializing("tokens").started()) is None
    assert not told.folder.exists()


def test_a_disk_that_takes_no_events_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "openlineage").write_text("no folder")
    warning = Emitter(tmp_path, "reviews").emit(materializing("tokens").started())
    assert warning and "was not written" in warning


def test_lines_of_several_processes_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    running = [subprocess.Popen([sys.executable, "-c", WRITERS, str(path), letter], cwd=Path(emitter.__file__).parents[2]) for letter in "ab"]
    assert [process.wait(60) for process in running] == [0, 0]
    written = path.read_text().splitlines()
    assert len(written) == 400 and set(written) == {"a" * 20_000, "b" * 20_000}
