"""The process that writes the request log: ``python -m llm_assets.serving.recorder FOLDER``, started by the gateway and ended with it.

Masking is hundreds of short steps in numpy, each of which gives the interpreter to the event loop and waits to get it back: beside
a busy gateway in one process most of a write was such waiting. It reads lines of JSON, lists of requests, and answers each
with a line, a list of one error or null for each. What has come while it was busy is one group, with one write a chain.

What is written survives the end of any process. The disk has it a flush later: a thread flushes all the time that there is something to
flush, and no answer waits for it: a flush takes as long as the disk is busy, also with what a training writes to it. So a power cut may
cost the lines of the last flush, what databases call asynchronous commit. It ends when standard input does, so it outlives no gateway.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llm_assets.corpus.pii import mask_all
from llm_assets.serving.dated_files import DatedFiles
from llm_assets.serving.request_log import MASKED_LENGTH

logger = logging.getLogger(__name__)

PIPE = 1 << 20  # bytes that are read at once; a pipe of Linux holds 64 KiB unless told otherwise
READ_LENGTH = 4 * MASKED_LENGTH  # characters that are masked, so that nothing is cut in two before it is found

Request = Mapping[str, Any]  # a line of the log but for its time, and with texts as they came


class Recorder:
    """Appends to ``<folder>/<chain>/<date>.jsonl`` (UTC dates), each group of requests in one write a chain.

    A line: ``{"id", "at", "chain", "release", "client", "texts": [{"characters", "sha256", "masked"}], "labels", "probs",
    "milliseconds"}``, and what a rollout adds.
    """

    def __init__(self, folder: Path) -> None:
        self._files = DatedFiles(folder)
        self._flusher = Flusher(self._files)

    def write(self, requests: Sequence[Request]) -> list[str | None]:
        """None for each request that is in its file, for the others why not: that the flush before failed is a reason too."""
        moment = datetime.now(UTC)
        masked = iter(mask_all([text[:READ_LENGTH] for request in requests for text in request["texts"]])[0])
        lines: dict[str, bytes] = {}
        for request in requests:
            texts = [_described(text, next(masked)) for text in request["texts"]]
            line = {"id": request["id"], "at": moment.isoformat(), **request, "texts": texts}
            chain = request["chain"]
            lines[chain] = lines.get(chain, b"") + json.dumps(line, ensure_ascii=False).encode() + b"\n"
        failed = self._flusher.failed()
        failed |= self._files.append({chain: data for chain, data in lines.items() if chain not in failed}, moment.date(), flush=False)
        self._flusher.go_on()
        errors = {
            chain: f"{self._files.path(chain, moment.date())} cannot be written ({error}): free space or mend its permissions"
            for chain, error in failed.items()
        }
        return [errors.get(request["chain"]) for request in requests]

    def close(self) -> None:
        """Flush and close every file."""
        self._flusher.end()
        self._files.close()


class Flusher:
    """Flushes files in a thread of its own while another one appends to them."""

    def __init__(self, files: DatedFiles) -> None:
        self._files = files
        self._failed: dict[str, OSError] = {}
        self._lock = threading.Lock()
        self._appended, self._over = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """There is something to flush."""
        self._appended.set()

    def failed(self) -> dict[str, OSError]:
        """The chains whose flush has failed since this was asked last, with the error."""
        with self._lock:
            found, self._failed = self._failed, {}
        return found

    def end(self) -> None:
        """End the thread, after the flush that it is at."""
        self._over = True
        self._appended.set()
        self._thread.join()

    def _run(self) -> None:
        while self._appended.wait() and not self._over:
            self._appended.clear()
            failed = self._files.flush()
            for chain, error in failed.items():
                logger.error("the newest lines of the request log of %s may be lost, its disk does not take them: %s", chain, error)
            with self._lock:
                self._failed |= failed


def _described(text: str, masked: str) -> dict[str, Any]:
    return {"characters": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest(), "masked": masked[:MASKED_LENGTH]}


def main() -> None:
    """Write what comes until nothing can come any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group; the gateway still has requests in flight then
    mask_all([""])  # loads what it needs
    gc.freeze()  # what is loaded stays: looking through it for garbage stopped the log for 20 ms now and then
    recorder = Recorder(Path(sys.argv[1]))
    for group in _groups():
        errors = iter(recorder.write([request for line in group for request in line]))
        sys.stdout.write("".join(json.dumps([next(errors) for _ in line]) + "\n" for line in group))
        sys.stdout.flush()
    recorder.close()


def _groups() -> Iterator[list[list[Request]]]:
    """The lines of standard input, those together that have come together."""
    rest = b""
    while piece := os.read(sys.stdin.fileno(), PIPE):
        *lines, rest = (rest + piece).split(b"\n")
        if lines:
            yield [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
