"""A process that has done its work ends with the exit code it was given, whatever its native threads do."""

from __future__ import annotations

import subprocess
import sys

BUSY = """
import threading, time, torch
from llm_assets.training import watch

def add():
    numbers = torch.randn(100)
    while True:
        numbers + numbers

for _ in range(4):
    threading.Thread(target=add, daemon=True).start()
time.sleep(0.2)
print("done")
"""


def run_to(ending: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BUSY + ending], capture_output=True, text=True, timeout=120)


def test_threads_inside_torch_do_not_abort_a_process_that_leaves() -> None:
    """With ``sys.exit(3)`` in its place such a process is aborted every time."""
    ended = run_to("watch.leave(3)")
    assert (ended.returncode, ended.stdout) == (3, "done\n"), ended.stderr
