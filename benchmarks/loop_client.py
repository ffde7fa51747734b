"""A client of the gateway in the experiment `loop`: asks, and votes later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx2

from benchmarks.loop_texts import Review
from llm_assets.serving.keys import add_key
from llm_assets.serving.state import gateway_state

AT_ONCE = 8  # requests
SECONDS = 60.0  # that an answer may take
IDLE = 2.0  # seconds after which a connection is not used again: the gateway closes it after 5
T = TypeVar("T")


class Answered(NamedTuple):
    """A review that was asked about, by the id of the answer."""

    review: Review
    id: str


class Client:
    """All users behind one API key; a request that fails is counted and goes on."""

    def __init__(self, home: Path, chain: str) -> None:
        """A key is made. Raises ``ConnectionError`` where no gateway runs on the data root."""
        state = gateway_state(home)
        if state is None:
            raise ConnectionError(f"no gateway runs on {home}")
        key = add_key(home, "users", ["ask", "feedback"], votes_per_day=1_000_000)
        limits = httpx2.Limits(max_connections=AT_ONCE, keepalive_expiry=IDLE)
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx2.Client(base_url=state["url"], headers=headers, limits=limits, timeout=SECONDS, trust_env=False)
        self._chain = chain
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="client")
        self.failed: list[str] = []

    def ask(self, reviews: Sequence[Review]) -> list[Answered]:
        """One request a review; those that were answered."""

        def one(review: Review) -> Answered | None:
            answer = self._post("/v1/classify", {"model": self._chain, "input": review.text})
            return Answered(review, answer["id"]) if answer else None

        return self._each(one, reviews)

    def vote(self, answered: Sequence[Answered]) -> int:
        """Say of each answer which label the review has; how many votes were taken."""
        return len(self._each(lambda each: self._post("/v1/feedback", {"id": each.id, "index": 0, "label": each.review.label}), answered))

    def close(self) -> None:
        """End its threads and connections."""
        self._threads.shutdown()
        self._http.close()

    def _each(self, one: Callable[[Any], T | None], items: Sequence[Any]) -> list[T]:
        return [found for found in self._threads.map(one, items) if found is not None]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        try:
            answer = self._http.post(path, json=body)
        except httpx2.HTTPError as error:
            self.failed.append(f"{path}: {type(error).__name__} {error}")
            return None
        if answer.status_code != HTTPStatus.OK:
            self.failed.append(f"{path}: {answer.status_code} {answer.text[:200]}")
            return None
        return dict(answer.json())
