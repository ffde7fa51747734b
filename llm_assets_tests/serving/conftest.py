from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fastapi.testclient import TestClient

from llm_assets.serving.app import create_app
from llm_assets.serving.state import gateway_state
from llm_assets_tests.serving.browsing import CHROMIUM, FLAGS
from llm_assets_tests.serving.tiny import deploy

SECONDS = 30  # how long anything may take to come about


def eventually(condition: Callable[[], object], seconds: float = SECONDS) -> object:
    """The first true value of ``condition``; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true after {seconds} s"
        time.sleep(0.05)
    return value


@contextlib.contextmanager
def gateway(home: Path) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """A gateway in a process of its own on a free port, and a client of it."""
    command = [sys.executable, "-m", "llm_assets.serving", "--port", "0", "--home", str(home)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        state = eventually(lambda: process.poll() is not None or gateway_state(home))
        assert isinstance(state, dict), f"the gateway ended with {process.poll()}"
        with httpx.Client(base_url=state["url"], trust_env=False, timeout=10) as client:
            eventually(lambda: answers(client, "/readyz"))
            yield client, process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def local_client(home: Path) -> TestClient:
    """A client, on this machine, of a gateway in this process."""
    return TestClient(create_app(home), "http://127.0.0.1", client=("127.0.0.1", 5000), raise_server_exceptions=False)


def ask(client: TestClient, text: str | list[str] = "good") -> httpx.Response:
    """Ask the chain `tiny`."""
    return client.post("/v1/classify", json={"model": "tiny", "input": text})


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Each test ends what it starts."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield

    def left() -> list[psutil.Process]:
        return [process for process in psutil.Process().children(recursive=True) if process.pid not in before and alive(process.pid)]

    eventually(lambda: not left())  # a browser's last helpers and a killed gateway's recorder end a moment after it


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


@pytest.fixture
def browser() -> Iterator[Any]:
    """Debian's chromium, headless; the test is skipped without it."""
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
