"""How a training process ends: with its launcher, however that ends, and by itself without a mishap."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from pathlib import Path
from typing import NoReturn

import psutil

from llm_assets.store.priority import yield_to_others

FIFO = "LLM_ASSETS_LAUNCHER_FIFO"  # the launcher holds the write end of this named pipe
WORKERS = "LLM_ASSETS_WORKERS"  # folder in which each process leaves a file named by its process id
ORPHANED_EXIT = 74  # EX_IOERR of sysexits.h


def attach() -> None:
    """Register this process with its launcher, start the thread that ends it with the launcher, and yield to what answers clients.

    Does nothing in a process that no launcher started. A named pipe, since torchrun passes no descriptors on; and a
    pipe rather than the parent's death signal, since a worker's parent is torchrun and not the launcher.
    """
    folder, fifo = os.environ.get(WORKERS), os.environ.get(FIFO)
    if folder is None or fifo is None:
        return
    Path(folder, str(os.getpid())).write_text(str(psutil.Process().create_time()))
    threading.Thread(target=_watch, args=(fifo,), name="launcher-watch", daemon=True).start()
    yield_to_others()


def leave(code: int) -> NoReturn:
    """End this process without the interpreter's finalization, in which a native thread may abort a training that has ended well.

    A thread of torch's, or of gloo's, that asks for the interpreter's lock during finalization is ended inside a C++
    destructor, which aborts the whole process (PyTorch issues 38228 and 190489).
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _watch(fifo: str) -> None:
    try:
        # Non-blocking, since opening a pipe whose writer is already gone would wait for ever.
        descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        os._exit(ORPHANED_EXIT)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        try:
            if os.read(descriptor, 1) == b"":
                os._exit(ORPHANED_EXIT)
        except BlockingIOError:  # a writer is there and silent
            poll.poll()
