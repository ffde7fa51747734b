from __future__ import annotations

import socket
from pathlib import Path

import pytest

from llm_assets.serving.client import GatewayRefusedError, classify
from llm_assets.serving.keys import add_key
from llm_assets.serving.ports import PortError
from llm_assets.serving.state import gateway_state
from llm_assets_tests.serving.conftest import gateway
from llm_assets_tests.serving.tiny import deploy


@pytest.fixture(autouse=True)
def behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment whose proxy answers nothing."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    deploy(tmp_path, 1)
    return tmp_path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_running_gateway_is_asked_and_its_refusal_told(home: Path) -> None:
    with gateway(home):
        answers = classify(home, "tiny", ["我 喜欢", "bad bad"], port=1)  # the port is for a gateway to start, none is
        with pytest.raises(GatewayRefusedError, match="no model other; the models here: tiny"):
            classify(home, "other", ["good"], port=1)
    assert [(answer.text, answer.label, answer.release) for answer in answers] == [
        ("我 喜欢", "positive", "tiny-1"),
        ("bad bad", "negative", "tiny-1"),
    ]
    assert all(0.5 < answer.probability <= 1 for answer in answers)


def test_a_key_comes_from_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_KEY", add_key(home, "terminal", ["ask"]))
    with gateway(home):
        assert len(classify(home, "tiny", ["good"], port=1)) == 1
        monkeypatch.delenv("LLM_ASSETS_KEY")
        with pytest.raises(GatewayRefusedError, match="a key is needed"):
            classify(home, "tiny", ["good"], port=1)


def test_without_a_gateway_one_is_started_for_the_question_and_ended(home: Path) -> None:
    answers = classify(home, "tiny", ["good"], free_port())
    assert [(answer.label, answer.release) for answer in answers] == [("positive", "tiny-1")]
    assert gateway_state(home) is None


def test_a_busy_port_names_the_option_of_ask(home: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(PortError, match="choose another port with --port N"):
            classify(home, "tiny", ["good"], holder.getsockname()[1])
