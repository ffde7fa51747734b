"""Whether a gateway of this user's is near its peak, told through the machine's memory to what may wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llm_assets.serving.cores import Cores
from llm_assets.serving.memory import own_folder

# Share of the cores' time: two cores of 2026 are near at four fifths of a gateway's peak, not at half of it (`benchmarks endurance` prints it).
# By processor time, since a training and a canary beside change the time by the clock far more.
NEAR = 0.47
LOOK = 0.5  # seconds between two looks at it
WEIGHT = 0.3  # of the last look in the moving average
LASTS = 15.0  # seconds for which a gateway counts as near its peak after it was


def mark() -> Path:
    """The file whose time says when a gateway was near its peak last. Raises like ``own_folder``."""
    return own_folder() / "near-peak"


def is_near() -> bool:
    """Whether a gateway is near its peak, or was in the last seconds."""
    try:
        return abs(time.time() - mark().stat().st_mtime) < LASTS
    except OSError:  # none ever was
        return False


class PeakWatch:
    """Looks at how much of the cores' time engines compute, and leaves the mark where that is much. On the event loop."""

    def __init__(self, cores: Cores, clock: Callable[[], float] = time.monotonic) -> None:
        self._cores, self._clock = cores, clock
        self._computed, self._at = cores.computed, clock()
        self._share = 0.0  # a moving average

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            self.look()

    def look(self) -> None:
        """Look once."""
        computed, at = self._cores.computed, self._clock()
        share = min(1.0, (computed - self._computed) / (at - self._at) / self._cores.count)  # what took long counts where it ends
        self._computed, self._at = computed, at
        self._share += WEIGHT * (share - self._share)
        if self._share >= NEAR:
            with suppress(OSError):  # memory is full, or another user's: what may wait goes on
                mark().touch()
