"""`llm-assets chat` against a gateway in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_assets.cli import app
from llm_assets.serving.client import GatewayRefusedError, chat
from llm_assets_tests.serving.conftest import gateway
from llm_assets_tests.serving.talking import deploy

GREEDY = {"temperature": 0, "max_tokens": 8}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    return tmp_path


def talk(lines: str, *options: str) -> Any:
    return CliRunner().invoke(app, ["chat", "talk", "--temperature", "0", "--max-tokens", "8", *options], input=lines)


def test_it_streams_remembers_and_forgets(home: Path) -> None:
    deploy(home, 1)
    with gateway(home):
        first = "".join(chat(home, "talk", [{"role": "user", "content": "hello"}], GREEDY))
        told = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": first}, {"role": "user", "content": "again"}]
        second = "".join(chat(home, "talk", told, GREEDY))
        assert first and first != second
        assert talk("hello\nagain\n/new\nhello\n\nnever read\n").output == f"< {first}\n< {second}\n< {first}\n"
        assert talk("hello\n", "--system", "be kind").output != f"< {first}\n"
        long = talk("hello\n" * 9)
        assert long.exit_code == 0 and long.output.count("< ") >= 9  # the context of 128 tokens is full long before
        with pytest.raises(GatewayRefusedError, match="the context of talk"):
            list(chat(home, "talk", [{"role": "user", "content": "hello " * 200}], GREEDY))


def test_without_a_gateway_it_tells_how_to_start_one(home: Path) -> None:
    ended = talk("hello\n")
    assert isinstance(ended.exception, GatewayRefusedError) and "llm-assets serve" in str(ended.exception)


def test_its_help_says_how_a_conversation_ends() -> None:
    said = CliRunner().invoke(app, ["chat", "--help"], env={"COLUMNS": "120", "TERM": "dumb"}).output
    assert all(word in said for word in ("empty line", "/new", "Ctrl-C", "LLM_ASSETS_KEY", "--seed"))
