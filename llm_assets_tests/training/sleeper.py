"""A worker that trains nothing: it appears, says a step, and sleeps, ends or fails as its job file asks."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from llm_assets.training import watch
from llm_assets.training.job import CANCEL, PREEMPTED, PROGRESS

if __name__ == "__main__":
    watch.attach()
    path = Path(sys.argv[1])
    asks = json.loads(path.read_text())

    def terminate(number: int, frame: object) -> None:
        if not (path.parent / CANCEL).exists() and not asks.get("fail"):
            (path.parent / "checkpoint").touch()
            (path.parent / PREEMPTED).write_text('{"step": 7}')
            sys.exit(75)
        os._exit(1)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if asks.get("deaf") else terminate)
    if os.environ["RANK"] == "0":
        with (path.parent / PROGRESS).open("a") as file:
            file.write(json.dumps({"step": 1, "total": 2, "loss": 0.5}) + "\n")
    (path.parent / f"ready-{os.environ['RANK']}").write_text(str(os.getpid()))
    if asks.get("fail") and os.environ["RANK"] == "1":
        raise RuntimeError("the cause that a person wants to read")
    time.sleep(asks["seconds"])
