"""What a piece of work cost: wall clock, energy of the machine, processor time and peak memory of this process and its children."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import psutil

from llm_assets.links.energy import EnergyCounter

SAMPLE_SECONDS = 0.5  # memory is sampled, processor time is exact but for children that end between two samples


class Meter:
    """Measures while it is open; figures are read after it closed."""

    def __enter__(self) -> Meter:
        self.seconds = self.core_seconds = 0.0
        self.peak_memory_bytes = 0
        self.energy_joules: float | None = None
        self._energy = EnergyCounter()
        self._started = time.monotonic()
        self._cores: dict[int, float] = {}
        self._before = self._sample()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self.core_seconds = self._sample() - self._before
        self.seconds = time.monotonic() - self._started

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> float:
        """Processor seconds so far, ended children included as last seen; notes the memory on the way."""
        memory = 0
        process = psutil.Process()
        for member in (process, *process.children(recursive=True)):
            try:
                times = member.cpu_times()
                memory += member.memory_info().rss
                self._cores[member.pid] = times.user + times.system
            except psutil.Error:  # ended while we looked
                continue
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)
        self.energy_joules = self._energy.read()
        return sum(self._cores.values())
