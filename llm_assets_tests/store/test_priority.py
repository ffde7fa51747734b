from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llm_assets.store.priority import AUTOGROUP, NICE, niceness

SAY = "import os; from llm_assets_tests.store.test_priority import session_value; print(os.nice(0), session_value())"


def session_value() -> str | None:
    """What the kernel shows of this process's session; None where it shows nothing: of init's, which is no autogroup, the file is empty."""
    words = AUTOGROUP.read_text().split() if AUTOGROUP.exists() else []
    return words[-1] if words else None


def said(value: str, *, session: bool, command: list[str] | None = None) -> list[str]:
    """Niceness and autogroup's value of a command that yields."""
    command = [sys.executable, "-m", "llm_assets.store.priority", *(command or [sys.executable, "-c", SAY])]
    done = subprocess.run(command, env={**os.environ, NICE: value}, start_new_session=session, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel shares cores by process")
def test_a_command_in_a_session_of_its_own_lowers_the_whole_session() -> None:
    assert said("7", session=True) == ["7", "7"]


def test_a_session_of_somebody_elses_stays_as_it_is() -> None:
    assert said("19", session=False) == ["19", str(session_value())]


def test_a_lower_priority_is_never_raised() -> None:
    again = [sys.executable, "-m", "llm_assets.store.priority", sys.executable, "-c", SAY]
    assert said("12", session=True, command=["env", f"{NICE}=3", *again])[0] == "12"


@pytest.mark.parametrize("value", ["20", "-5", "low", ""])
def test_what_is_no_niceness_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(NICE, value)
    with pytest.raises(ValueError, match=f"{NICE} is '{value}': give a number from 0"):
        niceness()
