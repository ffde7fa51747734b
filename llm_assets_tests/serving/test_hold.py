from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from llm_assets.serving import memory
from llm_assets.serving.hold import BEGINS, ENDS, FREE, LOOKS, Hold, holding
from llm_assets.serving.peak import mark
from llm_assets.store import guard
from llm_assets_tests.serving.conftest import eventually

COMPUTES, WAITS = "while True: pass", "import time; time.sleep(600)"
BOTH = f"import subprocess, sys; [subprocess.Popen([sys.executable, '-c', code]) for code in ({COMPUTES!r}, {WAITS!r})]; {WAITS}"


class Family:
    """What stands under a guard: a parent, one child that computes and one that waits."""

    def __init__(self) -> None:
        self.guard = subprocess.Popen([sys.executable, guard.__file__, sys.executable, "-c", BOTH], stdin=subprocess.PIPE)
        self.wanted = True
        self.told = list[str]()
        found = eventually(lambda: (seen := self._members()) and len(seen) == 3 and seen)
        assert isinstance(found, list)
        self.computes = next(process for process in found if process.cmdline()[-1] == COMPUTES)
        self.others = [process for process in found if process != self.computes]
        eventually(self._have_begun)  # a Python that begins computes

    def _members(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            found = psutil.Process(self.guard.pid).children(recursive=True)
            return [process for process in found if process.cmdline()[-1] in (COMPUTES, WAITS, BOTH)]
        return []

    def _have_begun(self) -> bool:
        before = [process.cpu_times() for process in self.others]
        time.sleep(0.2)
        return before == [process.cpu_times() for process in self.others] and all(
            process.status() == psutil.STATUS_SLEEPING for process in self.others
        )

    def hold(self) -> Hold:
        return Hold([self.guard.pid], self.told.append, lambda: self.wanted)

    def stopped(self) -> bool:
        assert not any(process.status() == psutil.STATUS_STOPPED for process in self.others)
        return self.computes.status() == psutil.STATUS_STOPPED

    def computed(self) -> float:
        return float(self.computes.cpu_times().user)

    def compute_more(self) -> None:
        before = self.computed()
        eventually(lambda: self.computed() > before)


@pytest.fixture
def family() -> Iterator[Family]:
    one = Family()
    yield one
    assert one.guard.stdin
    one.guard.stdin.close()
    one.guard.wait(30)


def held(family: Family, hold: Hold) -> None:
    """Up to the end of the part of a round in which all compute."""
    for _ in range(FREE):
        hold.step()
    family.compute_more()
    hold.step()
    eventually(family.stopped)


def test_who_computes_has_a_part_of_each_round_and_who_waits_is_let_be(family: Family) -> None:
    hold = family.hold()
    held(family, hold)
    for _ in range(LOOKS - FREE - 1):
        hold.step()
        assert family.stopped()
    held(family, hold)  # the next round begins with everything let go on
    hold.release()
    assert not family.stopped()
    family.compute_more()


def test_nothing_is_held_where_none_is_near_its_peak_and_both_changes_are_told(family: Family) -> None:
    family.wanted = False
    hold = family.hold()
    for _ in range(2 * LOOKS):
        hold.step()
        family.compute_more()
    assert not family.told
    family.wanted = True
    held(family, hold)
    family.wanted = False
    for _ in range(LOOKS - FREE):
        hold.step()
    assert family.told == [BEGINS, ENDS] and not family.stopped()


def test_what_ended_meanwhile_is_no_matter(family: Family) -> None:
    hold = family.hold()
    held(family, hold)
    family.computes.kill()
    for _ in range(2 * LOOKS):
        hold.step()
    gone = Hold([2**22 + 1], wanted=lambda: True)  # above the kernel's largest process id
    for _ in range(LOOKS):
        gone.step()


def test_an_error_lets_everything_go_on(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MEMORY", tmp_path)
    mark().touch()
    with pytest.raises(KeyError), holding([family.guard.pid]) as hold:
        held(family, hold)
        raise KeyError
    eventually(lambda: not family.stopped())


def test_the_guard_has_what_was_stopped_hear_its_end(family: Family) -> None:
    for process in (family.computes, *family.others):
        process.send_signal(signal.SIGSTOP)
    assert family.guard.stdin
    family.guard.stdin.close()
    assert family.guard.wait(guard.GRACE / 2) == 128 + signal.SIGTERM
