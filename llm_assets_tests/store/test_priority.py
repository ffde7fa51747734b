from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from llm_assets.store.priority import AUTOGROUP, NICE, SCHED_SETATTR, SHORTEST, SchedulingAttributes, niceness

SAY = "import os; from llm_assets_tests.store.test_priority import session_value; print(os.nice(0), session_value(), os.sched_getscheduler(0))"


def session_value() -> str | None:
    """What the kernel shows of this process's session; None where it shows nothing: of init's, which is no autogroup, the file is empty."""
    words = AUTOGROUP.read_text().split() if AUTOGROUP.exists() else []
    return words[-1] if words else None


def said(value: str, *, session: bool, command: list[str] | None = None) -> list[str]:
    """Niceness, autogroup's value and scheduling class of a command that yields."""
    command = [sys.executable, "-m", "llm_assets.store.priority", *(command or [sys.executable, "-c", SAY])]
    done = subprocess.run(command, env={**os.environ, NICE: value}, start_new_session=session, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel shares cores by process")
def test_a_command_in_a_session_of_its_own_lowers_the_whole_session() -> None:
    assert said("7", session=True)[:2] == ["7", "7"]


def test_a_session_of_somebody_elses_stays_as_it_is() -> None:
    assert said("19", session=False)[:2] == ["19", str(session_value())]


@pytest.mark.skipif(sys.platform != "linux", reason="classes of Linux")
@pytest.mark.parametrize(("value", "scheduling"), [("19", os.SCHED_IDLE), ("18", os.SCHED_OTHER)])
def test_the_lowest_niceness_is_the_idle_class(value: str, scheduling: int) -> None:
    assert said(value, session=False)[2] == str(scheduling)


def test_a_lower_priority_is_never_raised() -> None:
    again = [sys.executable, "-m", "llm_assets.store.priority", sys.executable, "-c", SAY]
    assert said("12", session=True, command=["env", f"{NICE}=3", *again])[0] == "12"


@pytest.mark.parametrize("value", ["20", "-5", "low", ""])
def test_what_is_no_niceness_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(NICE, value)
    with pytest.raises(ValueError, match=f"{NICE} is '{value}': give a number from 0"):
        niceness()


PROMPT = (
    "import threading, os; from llm_assets.store.priority import answer_promptly; from llm_assets_tests.store.test_priority import turn;"
    "answer_promptly(); thread = threading.Thread(target=lambda: print(turn(), os.nice(0))); thread.start(); thread.join()"
)


def turn() -> int:
    """The length of this thread's turns in nanoseconds, as the kernel says; 0 of kernels that have none."""
    found = SchedulingAttributes()
    number = SCHED_SETATTR[platform.machine()] + 1  # sched_getattr
    ctypes.CDLL(None).syscall(number, 0, ctypes.byref(found), ctypes.sizeof(found), 0)
    return int(found.runtime)


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in SCHED_SETATTR or not turn(), reason="a kernel without turns of one's own")
def test_who_answers_takes_the_shortest_turns_and_so_does_each_thread_it_starts() -> None:
    command = ["nice", "-n", "3", sys.executable, "-c", PROMPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [int(word) for word in done.stdout.split()] == [SHORTEST, 3 + os.nice(0)]
