"""A conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from llm_assets.serving.client import GatewayRefusedError, chat

ASKED, ANSWERED = "> ", "< "


def converse(home: Path, chain: str, system: str, settings: Mapping[str, Any]) -> None:
    """Ask for turns until an empty one. Raises ``GatewayRefusedError`` where an answer cannot be had even alone."""
    turns = _opening(system)
    while line := _asked():
        if line == "/new":
            turns = _opening(system)
            continue
        turns.append({"role": "user", "content": line})
        turns.append({"role": "assistant", "content": _answer(home, chain, turns, settings)})


def _opening(system: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}] if system else []


def _asked() -> str:
    """The next line, empty at the end."""
    try:
        return input(ASKED if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return ""


def _answer(home: Path, chain: str, turns: list[dict[str, str]], settings: Mapping[str, Any]) -> str:
    """Print the answer as it comes; one that Ctrl-C breaks off counts as far as it came. Drops old turns where the context is full."""
    said = ""
    while True:
        typer.echo(ANSWERED, nl=False)
        try:
            for piece in chat(home, chain, turns, settings):
                said += piece
                typer.echo(piece, nl=False)
                sys.stdout.flush()
        except KeyboardInterrupt:
            pass
        except GatewayRefusedError as error:
            first = next(index for index, turn in enumerate(turns) if turn["role"] == "user")
            if "the context of" not in str(error) or len(turns) - first < 3:
                raise
            del turns[first : first + 2]
            typer.echo("\r", nl=False)
            continue
        typer.echo()
        return said
