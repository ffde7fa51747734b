"""While a gateway is near its peak, what may wait computes in turns.

The scheduler's idle class (``store/priority.py``) has such work give way as soon as somebody wakes, but whoever wakes finds the caches
full of its numbers, and Linux moves nobody who waits to a core on which it runs before that core's next tick. Near the peak of a
gateway on two cores that was two to three times its p99; a quarter of the time leaves half as much again (``benchmarks endurance``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

from llm_assets.serving.peak import is_near

LOOKS, FREE = 4, 1  # looks that make up a round, and those of them in which all may compute
BEGINS = "a gateway is near its peak: what computes in runs has a quarter of its time"
ENDS = "no gateway is near its peak any more: runs go on as before"


class Hold:
    """Stops descendants of some processes that compute, in three looks of four, while it is wanted; those that hardly do are let be.

    Whoever computes a hundredth of a second in the first look is stopped for the others. So schedules and alerts go on beside a training
    that takes all it gets. What was stopped goes on with the next round, and with ``release``; where this process is killed,
    ``guard.py`` has it go on before it ends it.
    """

    def __init__(self, roots: Sequence[int], tell: Callable[[str], None] = lambda text: None, wanted: Callable[[], bool] = is_near) -> None:
        self._roots, self._tell, self._wanted = roots, tell, wanted
        self._looks = 0
        self.active = False  # whether it is wanted in this round
        self._seconds: dict[psutil.Process, float] = {}  # that each had computed when the round began
        self._held: list[psutil.Process] = []

    def step(self) -> None:
        """To be called every fifth of a second or so."""
        if self._looks == 0:
            self.release()
            self._decide()
            self._seconds = dict(self._computed()) if self.active else {}
        elif self._looks == FREE and self.active:
            for process, seconds in self._computed():
                if seconds > self._seconds.get(process, 0.0):  # which the kernel tells by the hundredth
                    self._held.append(process)
                    with suppress(psutil.Error):  # it has just ended
                        process.suspend()
        self._looks = (self._looks + 1) % LOOKS

    def release(self) -> None:
        """Let everything go on."""
        for process in self._held:
            with suppress(psutil.Error):  # it was ended meanwhile
                process.resume()
        self._held = []

    def _decide(self) -> None:
        before, self.active = self.active, self._wanted()
        if before != self.active:
            self._tell(BEGINS if self.active else ENDS)

    def _computed(self) -> Iterator[tuple[psutil.Process, float]]:
        """Of each descendant the seconds that it has computed since it began."""
        for root in self._roots:
            with suppress(psutil.Error, OSError):  # it has just ended, or this system tells nothing of it
                for process in psutil.Process(root).children(recursive=True):
                    with suppress(psutil.Error):
                        times = process.cpu_times()
                        yield process, times.user + times.system


@contextmanager
def holding(roots: Sequence[int], tell: Callable[[str], None] = lambda text: None) -> Iterator[Hold]:
    """A hold that lets everything go on when the block ends, however it does."""
    hold = Hold(roots, tell)
    try:
        yield hold
    finally:
        hold.release()
