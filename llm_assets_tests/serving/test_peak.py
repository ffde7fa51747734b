from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from llm_assets.serving import memory, peak
from llm_assets.serving.cores import Cores
from llm_assets.serving.peak import LASTS, PeakWatch, is_near, mark


@pytest.fixture(autouse=True)
def of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MEMORY", tmp_path)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def looked(share: float, looks: int = 20) -> None:
    """A watch over two cores that computed for such a share of ten seconds."""
    cores, clock = Cores(2), Clock()
    watch = PeakWatch(cores, clock)
    for _ in range(looks):
        clock.now += 0.5
        cores.computed += 2 * 0.5 * share
        watch.look()
    cores.close()


def test_a_gateway_at_half_its_peak_is_not_near_it() -> None:
    looked(0.43)
    assert not is_near()


def test_a_gateway_at_four_fifths_of_its_peak_is_near_it_and_stays_so_for_some_seconds() -> None:
    looked(0.5)
    assert is_near()
    os.utime(mark(), (0, time.time() - LASTS - 1))
    assert not is_near()


def test_one_large_request_is_no_peak() -> None:
    looked(5.0, looks=1)  # its seconds count where it ends
    assert not is_near()


def test_a_clock_that_was_set_back_leaves_nobody_waiting() -> None:
    looked(0.5)
    os.utime(mark(), (0, time.time() + 3600))
    assert not is_near()


def test_memory_that_takes_nothing_ends_no_watch(tmp_path: Path) -> None:
    (tmp_path / f"llm_assets-{os.geteuid()}").mkdir(mode=0o755)  # another user's, for all that is known
    looked(1.0)
    assert not is_near()


def test_it_looks_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "LOOK", 0.01)

    async def scenario() -> None:
        cores = Cores(1)
        watch = asyncio.create_task(PeakWatch(cores).watch())
        while not is_near():
            cores.computed += 1.0
            await asyncio.sleep(0.001)
        watch.cancel()
        cores.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))
