"""A client of the gateway in the experiment `loop`: asks, and votes later."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks.loop_texts import Review
from llm_assets.serving.keys import add_key
from llm_assets.serving.state import gateway_state

AT_ONCE = 8  # requests
SECONDS = 60.0  # that an answer may take
T = TypeVar("T")


class Answered(NamedTuple):
    """A review that was asked about, by the id of the answer."""

    review: Review
    id: str


class Client:
    """All users behind one API key; a request that fails is counted and goes on."""

    def __init__(self, home: Path, chain: str) -> None:
        self._home, self._chain = home, chain
        self._key = add_key(home, "users", ["ask", "feedback"], votes_per_day=1_000_000)
        self._local = threading.local()  # a connection a thread
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="client")
        self.requests = 0
        self.failed: list[str] = []

    def ask(self, reviews: Sequence[Review]) -> list[Answered]:
        """One request a review; those that were answered."""

        def one(review: Review) -> Answered | None:
            answer = self._post("/v1/classify", {"model": self._chain, "input": review.text})
            return Answered(review, answer["id"]) if answer else None

        return self._each(one, reviews)

    def vote(self, answered: Sequence[Answered]) -> int:
        """Say of each answer which label the review has; how many votes were taken."""

        def one(each: Answered) -> bool | None:
            return self._post("/v1/feedback", {"id": each.id, "index": 0, "label": each.review.label}) is not None or None

        return len(self._each(one, answered))

    def close(self) -> None:
        """End its threads."""
        self._threads.shutdown()

    def _each(self, one: Callable[[Any], T | None], items: Sequence[Any]) -> list[T]:
        return [found for found in self._threads.map(one, items) if found is not None]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        self.requests += 1
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        try:
            connection = self._connection()
            connection.request("POST", path, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            content = response.read()
        except OSError as error:
            self._local.connection = None
            self.failed.append(f"{path}: {error}")
            return None
        if response.status != 200:
            self.failed.append(f"{path}: {response.status} {content[:200].decode(errors='replace')}")
            return None
        return dict(json.loads(content))

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            state = gateway_state(self._home)
            if state is None:
                raise ConnectionError(f"no gateway runs on {self._home}")
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", int(state["port"]), timeout=SECONDS)
        return connection
