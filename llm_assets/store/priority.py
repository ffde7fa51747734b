"""Work that may wait runs at a lower priority than the gateway, whose clients wait: ``python -m llm_assets.store.priority COMMAND...``.

A niceness says how large a share of a core somebody gets, not how soon: who wakes waits for the end of the other's turn, some
milliseconds. So work that may wait joins the scheduler's idle class (sched(7)), whose turn ends as soon as anybody else wakes, and who
answers clients asks for the shortest turns, which on Linux 6.12 shortens the others' beside it too.

Where a desktop or a bare server shares the cores among sessions first (autogroup; a container or a service of systemd has no such
groups), niceness and class count within one session alone. So what is started as such a COMMAND keeps its training processes in its
own session, which is the gateway's under ``llm-assets up``; elsewhere each training process stands in a session of its own, whose value
is lowered.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

NICE = "LLM_ASSETS_NICE"  # environment: 0, as everybody, to 19
SESSION = "LLM_ASSETS_ONE_SESSION"  # environment: set where what yields stands in one session with what it yields to
DEFAULT = 19  # the lowest, and with it the idle class: beside something at 0 on the same core one part in three hundred of its time
AUTOGROUP = Path("/proc/self/autogroup")
TRIES, PAUSE = 30, 0.1  # the kernel takes such a value from all unprivileged users together ten times a second
SHORTEST = 100_000  # nanoseconds of a turn, the least that the kernel gives; its own are 3 ms
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # numbers of the system call, which has no function in Python or the C library


def niceness() -> int:
    """By how much work that may wait yields. Raises ``ValueError`` naming the variable for what is no number from 0 to 19."""
    value = os.environ.get(NICE, str(DEFAULT))
    if not value.isdigit() or int(value) > 19:
        raise ValueError(f"{NICE} is {value!r}: give a number from 0 (as everybody) to 19")
    return int(value)


def yield_to_others() -> None:
    """Lower the priority of this process and of what it starts from now on, never raise it."""
    nice = niceness()
    os.nice(max(0, nice - os.nice(0)))
    if nice == DEFAULT and sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if os.getsid(0) == os.getpid():  # in a session of somebody else's it would lower what else runs there
        _lower_session(nice)


def own_group() -> dict[str, Any]:
    """What ``subprocess.Popen`` takes to keep a terminal's signals, and those meant for this process's group, from a process that may wait."""
    return {"process_group": 0} if os.environ.get(SESSION) else {"start_new_session": True}


class SchedulingAttributes(ctypes.Structure):
    """``struct sched_attr`` of sched_setattr(2), in its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),  # of the ordinary policy: the length of a turn in nanoseconds, 0 for the kernel's own
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def answer_promptly() -> None:
    """Have this thread, and what it starts from now on, take the shortest turns on a core; changes nothing where the kernel knows of none."""
    if number := SCHED_SETATTR.get(platform.machine()) if sys.platform == "linux" else None:
        wanted = SchedulingAttributes(size=ctypes.sizeof(SchedulingAttributes), nice=os.nice(0), runtime=SHORTEST)
        ctypes.CDLL(None).syscall(number, 0, ctypes.byref(wanted), 0)  # earlier kernels refuse or take no notice, and all goes on as before


def _lower_session(nice: int) -> None:
    for _ in range(TRIES):
        try:
            if nice > int(AUTOGROUP.read_text().split()[-1]):  # "/autogroup-17 nice 0"
                AUTOGROUP.write_text(str(nice))
            break
        except BlockingIOError:
            time.sleep(PAUSE)
        except (OSError, IndexError, ValueError):  # another system, or a container that shows none
            break


if __name__ == "__main__":
    os.environ[SESSION] = "1"
    yield_to_others()
    os.execvp(sys.argv[1], sys.argv[1:])
