"""Runs one command and leaves nothing of it behind, however its parent ends: ``python guard.py COMMAND...``.

Standard input is the lifeline: when the parent closes it, or dies even by SIGKILL, the guard ends the command and all its
descendants. On Linux the guard is their subreaper, so that those which changed session or lost their own parent are found too.
Runs as a script, so that it starts in a tenth of a second and imports nothing of the package.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

import psutil

GRACE = 8.0  # seconds between SIGTERM and SIGKILL
INTERVAL = 0.1  # seconds between two looks
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def main(command: list[str]) -> int:
    """Run until the command ends or the lifeline does; returns the command's exit status (128 + n for signal n)."""
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_die_with_parent)
    except OSError as error:
        print(f"{command[0]} does not start: {error}", file=sys.stderr, flush=True)
        return 127
    status = None
    while status is None and not stopping and not select.select([sys.stdin], [], [], INTERVAL)[0]:
        status = reap(child.pid)
    ended = end_descendants(child.pid)
    child.returncode = status if status is not None else ended  # reaped here, not by Popen
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def reap(pid: int) -> int | None:
    """Collect every child that ended, adopted ones included; the exit status of ``pid`` if it is among them."""
    status = None
    while True:
        try:
            ended, code = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if not ended:
            return status
        if ended == pid:
            status = os.waitstatus_to_exitcode(code)


def end_descendants(pid: int) -> int:
    """SIGTERM to every descendant, SIGKILL to those alive 8 s later; returns when none lives, with the status of ``pid``."""
    status, deadline, asked = 0, time.monotonic() + GRACE, set()
    while living := psutil.Process().children(recursive=True):
        for process in living:
            late = time.monotonic() > deadline
            if late or process not in asked:
                asked.add(process)
                try:
                    process.send_signal(signal.SIGKILL if late else signal.SIGTERM)
                    process.resume()  # one that was stopped would not hear it
                except psutil.Error:
                    continue  # it ended by itself, or belongs to somebody else and ends without us
        time.sleep(INTERVAL / 2)
        code = reap(pid)
        status = status if code is None else code
    return status


def _die_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
