"""Sliding windows over what a release did: the newest requests and comparisons, counted when asked."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from llm_assets.serving.rollout import Apart, Rollout, Window

LENGTH = 500  # newest requests, and newest comparisons, that are judged


class Watch:
    """What one release did in one step of a rollout. The event loop adds, the reconciling thread counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = 0
        self._requests: deque[tuple[bool, float]] = deque(maxlen=LENGTH)  # failed, milliseconds
        self._comparisons: deque[Apart] = deque(maxlen=LENGTH)  # of labels 1 where they differed or 0, and no bytes

    def request(self, failed: bool, milliseconds: float) -> None:
        """Add one request."""
        with self._lock:
            self._total += 1
            self._requests.append((failed, milliseconds))

    def comparisons(self, different: int, of: int) -> None:
        """Add the comparison of ``of`` answers, of which ``different`` were others than the other release's."""
        with self._lock:
            self._comparisons.extend([Apart(1, 0)] * different + [Apart(0, 0)] * (of - different))

    @property
    def compared(self) -> int:
        """Comparisons that are judged now."""
        return len(self._comparisons)

    def read(self, apart: Apart) -> None:
        """Add a reply that both releases read, and how far apart they are on it."""
        with self._lock:
            self._comparisons.append(apart)

    def window(self, max_p99_ms: float, allowed: float = 0.0) -> Window:
        """The counts now; ``allowed`` are the bits per byte that replies may be apart."""
        with self._lock:
            return Window(
                total=self._total,
                requests=len(self._requests),
                errors=sum(failed for failed, _ in self._requests),
                slow=sum(milliseconds > max_p99_ms for _, milliseconds in self._requests),
                compared=len(self._comparisons),
                different=sum(one.bits for one in self._comparisons),
                bytes=sum(one.bytes for one in self._comparisons),
                squares=sum((one.bits - allowed * one.bytes) ** 2 for one in self._comparisons),
            )

    def p99(self) -> float | None:
        """The time that one request in a hundred exceeded, in milliseconds (nearest rank); None before the first."""
        with self._lock:
            times = sorted(milliseconds for _, milliseconds in self._requests)
        return round(times[max(0, -(-99 * len(times) // 100) - 1)], 3) if times else None


@dataclass(frozen=True)
class Watches:
    """What both releases did in one step of a rollout."""

    step: tuple[object, ...]
    candidate: Watch = field(default_factory=Watch)
    stable: Watch = field(default_factory=Watch)


def step_of(rollout: Rollout) -> tuple[object, ...]:
    """What names the step in which a rollout is; another step begins with empty windows."""
    return (rollout.release, rollout.stage, rollout.step, rollout.since)
