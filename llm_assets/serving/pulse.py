"""Requests a minute, from the gateway's own counters: looked at once a minute, so that no request pays for it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

from llm_assets.serving.metrics import Metrics

MINUTES = 60  # that are kept


class Minute(NamedTuple):
    """What a chain was asked in one minute."""

    at: int  # unix time of its beginning
    requests: int
    failed: int  # of the gateway's own fault: answered with 5xx


class Pulse:
    """The last hour, or less where the gateway started later. One thread looks; reading is for any."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        self._metrics, self._clock = metrics, clock
        self._marks: deque[tuple[int, Mapping[tuple[str, bool], int]]] = deque(maxlen=MINUTES + 1)  # a minute, and the counters at its beginning

    def look(self) -> None:
        """Note the counters where another minute has begun."""
        minute = int(self._clock() // 60)
        if not self._marks or self._marks[-1][0] != minute:
            self._marks.append((minute, self._counted()))

    def minutes(self, chain: str) -> list[Minute]:
        """A chain's minutes, oldest first; the last one is not over. After a leap of the clock one stands for all that it leapt over."""
        marks = [*self._marks, (0, self._counted())]
        return [
            Minute(minute * 60, sum(after[chain, kind] - before[chain, kind] for kind in (False, True)), after[chain, True] - before[chain, True])
            for (minute, before), (_, after) in pairwise(marks)
        ]

    def _counted(self) -> Counter[tuple[str, bool]]:
        """Requests by chain, and whether they failed."""
        counted: Counter[tuple[str, bool]] = Counter()
        for sample in (sample for metric in self._metrics.requests.collect() for sample in metric.samples):
            if sample.name.endswith("_total"):
                counted[sample.labels["chain"], sample.labels["status"].startswith("5")] += int(sample.value)
        return counted
