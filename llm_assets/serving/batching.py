"""Batching without waiting: what arrives while every core works makes up the next batch, as large as the latency goal allows."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llm_assets.serving.cores import Cores
from llm_assets.serving.engine import Classified

Tokens = Sequence[int]

GOAL = 0.008  # seconds a batch may take; on two cores of 2026 larger ones answer no more requests a second
LEAST, FIRST, MOST = 128, 512, 8192  # padded tokens a batch: the smallest and the first budget, and the largest
OVERHEAD = 64  # characters a text counts for in the queue beside its own
QUEUE = 1_000_000  # characters that may wait: some seconds of work, and little memory
LOOKED_AT = 256  # windows among which neighbours of like length are sought


class QueueFullError(RuntimeError):
    """More waits than the queue may hold; ``seconds`` says when to come again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full: come again in {seconds} s")
        self.seconds = seconds


class Engine(Protocol):
    """What the batcher asks of a classifier; see ``OnnxClassifier``."""

    def encode(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """The windows of each text as token ids."""

    def probabilities(self, encoded: Sequence[Sequence[Tokens]]) -> list[list[float]]:
        """Probabilities [texts, labels], the mean over each text's windows."""


@dataclass(eq=False)
class Request:
    """Texts that wait for their answers together."""

    texts: Sequence[str]
    future: asyncio.Future[list[Classified]]
    arrived: int  # the clock of the queue when it came
    windows: list[list[list[int]]] = field(default_factory=list)  # by text
    rows: dict[tuple[int, int], list[float]] = field(default_factory=dict)  # (text, window) -> probabilities
    missing: int = -1  # windows without an answer; -1 before the texts are encoded

    def answers(self) -> list[Classified]:
        """The mean over each text's windows."""
        return [
            Classified(_mean([self.rows[text, number] for number in range(len(windows))]), sum(map(len, windows)))
            for text, windows in enumerate(self.windows)
        ]


@dataclass(order=True)
class Waiting:
    """One window of one text, in the order of fair queueing."""

    order: int  # the request's arrival plus the windows of its own before this one
    number: int  # for equal orders, as they came
    request: Request = field(compare=False)
    place: tuple[int, int] = field(compare=False)
    tokens: Tokens = field(compare=False)


class Batcher:
    """Joins concurrent requests into batches, ``turns`` batches at a time, off the event loop.

    An engine with a turn to spare starts at once, so a lone request pays no delay. A batch holds windows of like length, at most ``budget``
    padded tokens; the budget follows the measured speed, so that a batch takes ``goal`` seconds at most. Who goes first is
    start-time fair queueing (Goyal, Vin and Cheng, 1996): a short request passes the tail of a long one, and the oldest
    window is in every batch, so that none starves.
    """

    def __init__(
        self,
        engine: Engine,
        cores: Cores,
        goal: float = GOAL,
        watch: Callable[[int, float], None] = lambda windows, seconds: None,
    ) -> None:
        """``watch`` is told of each batch how many windows it held and how long it took, in one of the cores' threads, one at a time."""
        self._engine, self._cores, self._goal, self._watch = engine, cores, goal, watch
        self.turns = cores.count  # batches at a time
        self._arrived: deque[Request] = deque()  # the event loop appends, the cores' threads take
        self._lock = threading.Lock()  # between those threads: of all that follows but for the tasks and the characters
        self._heap: list[Waiting] = []
        self._numbers = itertools.count()
        self._clock = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._speed = 20_000.0  # tokens a second, a moving average; a text has about as many characters, or more
        self.budget = FIRST  # padded tokens
        self.waiting = 0  # characters

    def submit(self, texts: Sequence[str]) -> asyncio.Future[list[Classified]]:
        """A future of the engine's answers, in the order of ``texts``; cancelling it gives its place up.

        The future raises what the engine raised. Raises ``QueueFullError`` when others wait and ``QUEUE`` would be passed.
        """
        loop = asyncio.get_running_loop()
        size = sum(map(len, texts)) + OVERHEAD * len(texts)
        if self.waiting and self.waiting + size > QUEUE:
            raise QueueFullError(1 + int(self.waiting / self._speed))
        request = Request(texts, loop.create_future(), self._clock)
        self.waiting += size
        request.future.add_done_callback(lambda _: self._leave(size))
        self._arrived.append(request)
        if len(self._workers) < self.turns:
            worker = loop.create_task(self._work())
            self._workers.add(worker)
        return request.future

    def _leave(self, size: int) -> None:
        self.waiting -= size

    async def _work(self) -> None:
        while self._arrived or self._heap:
            for request, result in await self._cores.run(self._turn):
                if request.future.done():
                    continue  # a client that went away
                if isinstance(result, Exception):
                    request.future.set_exception(result)
                else:
                    request.future.set_result(result)
        worker = asyncio.current_task()
        assert worker
        self._workers.remove(worker)

    def _turn(self) -> list[tuple[Request, list[Classified] | Exception]]:
        """Encode what has arrived and answer one batch: the requests that are ended by it."""
        began = time.perf_counter()
        with self._lock:
            failed = self._take_in()
            batch = self._choose()
        if not batch:
            return failed
        try:
            rows = self._engine.probabilities([[window.tokens] for window in batch])
        except Exception as error:
            return failed + [(request, error) for request in {window.request for window in batch}]
        with self._lock:
            self._adapt(batch, time.perf_counter() - began)
            return failed + [(request, request.answers()) for request in _fill(batch, rows)]

    def _take_in(self) -> list[tuple[Request, list[Classified] | Exception]]:
        """Put the windows of what has arrived among those that wait; the requests whose texts the engine cannot encode."""
        fresh = [request for _ in range(len(self._arrived)) if not (request := self._arrived.popleft()).future.done()]
        try:
            encoded = iter(self._engine.encode([text for request in fresh for text in request.texts]))
        except Exception as error:
            return [(request, error) for request in fresh]
        for request in fresh:
            request.windows = [next(encoded) for _ in request.texts]
            places = [(text, number) for text, windows in enumerate(request.windows) for number in range(len(windows))]
            request.missing = len(places)
            for ahead, (text, number) in enumerate(places):
                window = Waiting(request.arrived + ahead, next(self._numbers), request, (text, number), request.windows[text][number])
                heapq.heappush(self._heap, window)
        return []

    def _choose(self) -> list[Waiting]:
        """The oldest window and those nearest to it in length, as many as the budget allows."""
        candidates = list(itertools.islice(self._living(), LOOKED_AT))
        if not candidates:
            return []
        self._clock, length = candidates[0].order, len(candidates[0].tokens)
        batch, longest = list[Waiting](), 0
        for window in sorted(candidates, key=lambda window: abs(len(window.tokens) - length)):
            padded = max(longest, len(window.tokens))
            if batch and padded * (len(batch) + 1) > self.budget:
                heapq.heappush(self._heap, window)
            else:
                batch.append(window)
                longest = padded
        return batch

    def _living(self) -> Iterator[Waiting]:
        """Take the windows that are still awaited from the heap, in their order."""
        while self._heap:
            window = heapq.heappop(self._heap)
            if not window.request.future.done():
                yield window

    def _adapt(self, batch: Sequence[Waiting], seconds: float) -> None:
        """Less where the goal was missed, more where a full batch met it with room (additive increase, multiplicative decrease)."""
        padded = len(batch) * max(len(window.tokens) for window in batch)
        if seconds > self._goal:
            self.budget = max(LEAST, min(self.budget, int(padded * 0.8)))
        elif padded > 0.8 * self.budget:
            self.budget = min(MOST, self.budget + LEAST // 2)
        self._speed += 0.1 * (sum(len(window.tokens) for window in batch) / seconds - self._speed)
        self._watch(len(batch), seconds)


def _fill(batch: Sequence[Waiting], rows: Sequence[list[float]]) -> list[Request]:
    """Give each window's answer to its request; the requests that now have all of theirs."""
    ended = []
    for window, row in zip(batch, rows, strict=True):
        window.request.rows[window.place] = row
        window.request.missing -= 1
        if not window.request.missing:
            ended.append(window.request)
    return ended


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return list(rows[0]) if len(rows) == 1 else [sum(column) / len(rows) for column in zip(*rows, strict=True)]
