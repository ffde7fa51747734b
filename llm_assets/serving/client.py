"""Asking the gateway from this machine; one is started for the question where none is running."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

from llm_assets.serving.loopback import open_url
from llm_assets.serving.services import gateway_service
from llm_assets.serving.state import gateway_state
from llm_assets.serving.supervisor import start

SECONDS = 60.0  # a fresh gateway may still be loading its releases


class GatewayRefusedError(RuntimeError):
    """The gateway answered with an error; its message says why."""


@dataclass(frozen=True)
class Answer:
    """What the model said of one text."""

    text: str
    label: str
    probability: float
    release: str


def classify(home: Path, chain: str, texts: Sequence[str], port: int) -> list[Answer]:
    """Classify texts with a chain's release, under the API key ``LLM_ASSETS_KEY`` of the environment where there is one.

    Raises ``GatewayRefusedError`` with the gateway's own words.
    """
    with _gateway(home, port) as url:
        request = _request(f"{url}/v1/classify", {"model": chain, "input": list(texts)})
        try:
            with open_url(request, SECONDS) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise GatewayRefusedError(json.load(error)["error"]["message"]) from error
    return [Answer(text, item["label"], max(item["probs"]), answer["release"]) for text, item in zip(texts, answer["data"], strict=True)]


def chat(home: Path, chain: str, turns: Sequence[Mapping[str, str]], settings: Mapping[str, Any]) -> Iterator[str]:
    """The assistant's next turn, piece by piece as it is generated, from the gateway that runs.

    ``turns`` are OpenAI's messages, ``settings`` more fields of its request. Raises ``GatewayRefusedError`` with the gateway's own
    words, or where none runs: a conversation is not worth loading a model for at each turn.
    """
    state = gateway_state(home)
    if state is None:
        raise GatewayRefusedError("no gateway runs here: start one with `llm-assets serve` (or `make up`), in another terminal")
    request = _request(f"{state['url']}/v1/chat/completions", {"model": chain, "messages": list(turns), "stream": True, **settings})
    try:
        with open_url(request, SECONDS) as response:
            for line in response:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        raise GatewayRefusedError(chunk["error"]["message"])
                    yield from (choice["delta"].get("content") or "" for choice in chunk["choices"])
    except urllib.error.HTTPError as error:
        raise GatewayRefusedError(json.load(error)["error"]["message"]) from error
    except (OSError, HTTPException) as error:
        raise GatewayRefusedError(f"the gateway broke off ({error}); its log says why") from error


def _request(url: str, body: Mapping[str, Any]) -> urllib.request.Request:
    key = os.environ.get("LLM_ASSETS_KEY")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    return urllib.request.Request(url, json.dumps(body).encode(), headers)


@contextmanager
def _gateway(home: Path, port: int) -> Iterator[str]:
    state = gateway_state(home)
    if state:
        yield state["url"]
        return
    service = gateway_service(home, port)
    # A question needs the release, not just a process; and its own option chooses the port.
    ready = replace(service, ready_url=f"{service.url}/readyz", port_option="--port")
    with start(ready, home / "logs" / "gateway.log"):
        yield str(service.url)
