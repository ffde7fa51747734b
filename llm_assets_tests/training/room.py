"""The real worker as one process that stays: a job a line on its standard input, so that tests pay the imports once.

Each job runs ``worker.main`` under DeepSpeed as torchrun would start it for one process. ``launch_in_room`` is a ``Launch``.
"""

from __future__ import annotations

import atexit
import functools
import os
import socket
import subprocess
import sys
from pathlib import Path

from llm_assets.store.progress import Progress
from llm_assets.training.launch import WorkerFailedError


def launch_in_room(job: Path, processes: int, progress: Progress) -> None:
    """Run a job; ``processes`` is 1 whatever is asked for."""
    room = _room()
    assert room.stdin is not None and room.stdout is not None
    print(job, file=room.stdin, flush=True)
    if (answer := room.stdout.readline().strip()) != "done":
        raise WorkerFailedError(answer or "the room is closed")


def room_id() -> int:
    """The process's id."""
    return _room().pid


@functools.cache
def _room() -> subprocess.Popen[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    single = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    room = subprocess.Popen(
        [sys.executable, "-m", __name__], env={**os.environ, **single, "OMP_NUM_THREADS": "1"}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    atexit.register(room.kill)
    return room


def main() -> None:
    """Work until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    from llm_assets.training import worker

    for line in sys.stdin:
        try:
            code = worker.main(Path(line.strip()))
            answer = "done" if code == 0 else f"exit code {code}"
        except Exception as error:  # whatever it is, the test wants to read it
            answer = f"{type(error).__name__}: {error}".replace("\n", " ")
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
