"""Work that may wait runs at a lower priority than the gateway, whose clients wait: ``python -m llm_assets.store.priority COMMAND...``.

A priority says how large a share of a core somebody gets, not how soon: who wakes waits for the end of the other's turn, some
milliseconds. So who answers clients asks for the shortest turns, which on Linux 6.12 shortens the others' beside it too.

Linux shares the cores among sessions first (autogroup, on where a desktop or a server distribution left it so) and heeds ``nice``
only within one (sched(7)). Each training process, and whatever a service of ``llm-assets up`` starts, stands in a session of its
own, so the session's own value is lowered with that of its first process.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from pathlib import Path

NICE = "LLM_ASSETS_NICE"  # environment: 0, as everybody, to 19
DEFAULT = 19  # the lowest: beside something at 0 on the same core one part in seventy of its time
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
    if os.getsid(0) == os.getpid():  # in a session of somebody else's it would lower what else runs there
        _lower_session(nice)


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
    yield_to_others()
    os.execvp(sys.argv[1], sys.argv[1:])
