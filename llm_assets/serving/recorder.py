"""The process that writes the request log: ``python -m llm_assets.serving.recorder LOG SPOOL``, started by the gateway and ended with it.

It reads what the gateway put into a `spool`, masks it and appends it to the log's files. No answer waits for that, so it goes by large
groups, with a rest after each: masking is hundreds of steps in numpy, whose fixed cost each group pays anew (`benchmarks masking`
prints it by the size of groups). Standard input wakes it, and its end ends it; its output says how far it has come (``Report``).

What is written survives the end of any process. The disk has it a flush later: a thread flushes all the time that there is something to
flush: a flush takes as long as the disk is busy, also with what a training writes to it. Lines that cannot be appended go back into
memory, into a spool of the recorder's own, and are tried again; what a flush that failed was to make safe is not.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from llm_assets.corpus.pii import mask_all
from llm_assets.serving.dated_files import DatedFiles, last_lines
from llm_assets.serving.request_log import MASKED_LENGTH
from llm_assets.serving.spool import Backlog, Spool, abandoned, gone, pending, place

logger = logging.getLogger(__name__)

READ_LENGTH = 4 * MASKED_LENGTH  # characters that are masked, so that nothing is cut in two before it is found
GROUP = 1 << 20  # bytes of a group, about 2,000 requests
SHARE, LONGEST_REST = 0.03, 0.25  # of the time that it works where that is enough, and seconds after which it works again in any case
AGAIN = 1.0  # seconds after which a disk is tried again that did not take something
SETTLED = 10.0  # seconds in which a living recorder has long written what came before
NICE = 5  # who answers clients comes first
NEWER = 10_000  # lines of another gateway that may have come into a file after those that a recorder had written when it died

Request = Mapping[str, Any]  # a line of the log, with texts as they came


class Report(NamedTuple):
    """What the gateway is told, as a JSON array."""

    position: int  # bytes of the spool that were let go of
    requests: int  # in the group
    failed: Mapping[str, str]  # by chain, why its newest lines are not in its file
    rests: bool  # until it is woken


class Recorder:
    """Appends to ``<folder>/<chain>/<date>.jsonl`` (UTC dates), each group of requests in one write a file.

    A line: ``{"id", "at", "chain", "release", "client", "texts": [{"characters", "sha256", "masked"}], "labels", "probs",
    "milliseconds"}``, and what a rollout adds.
    """

    def __init__(self, folder: Path) -> None:
        self._files = DatedFiles(folder)
        self._flusher = Flusher(self._files)
        self._parent = place(folder)
        self._unwritten: dict[tuple[str, date], bytes] = {}  # what could not be appended
        self._kept: Spool | None = None  # the requests of these lines, should this process die

    def write(self, requests: Sequence[Request]) -> dict[str, str]:
        """Append them, and what could not be appended before; why not, by chain: that the last flush failed is a reason too."""
        masked = iter(_masked([text[:READ_LENGTH] for request in requests for text in request["texts"]]))
        lines = defaultdict(list, {place: [data] for place, data in self._unwritten.items()})
        for request in requests:
            line = {**request, "texts": [_described(text, next(masked)) for text in request["texts"]]}
            lines[_place(request)] += [to_json(line), b"\n"]
        errors: dict[str, str] = {}
        self._unwritten = {}
        for (chain, day), pieces in lines.items():
            if failed := self._files.append({chain: (data := b"".join(pieces))}, day, flush=False):
                self._unwritten[chain, day] = data
                errors[chain] = f"{self._files.path(chain, day)} cannot be written ({failed[chain]}): free space or mend its permissions"
        self._keep([request for request in requests if _place(request) in self._unwritten] if self._unwritten else [])
        self._flusher.go_on()
        flushes = self._flusher.failed()
        return {chain: f"the disk did not take the newest lines of {chain} ({error}): mend it" for chain, error in flushes.items()} | errors

    def missing(self, requests: Sequence[Request]) -> list[Request]:
        """Those that are in no file yet: whoever died may have written some of them."""
        known = set[object]()
        for chain, day in set(map(_place, requests)):
            with suppress(OSError):  # there is none, or none that can be read: writing says which
                known |= {line.get("id") for line in last_lines(self._files.path(chain, day), len(requests) + NEWER)}
        return [request for request in requests if request["id"] not in known]

    def close(self) -> None:
        """Flush and close every file; what could not be written stays in memory, for the next recorder."""
        self._flusher.end()
        self._files.close()
        if self._kept:
            self._kept.close()

    def _keep(self, requests: Sequence[Request]) -> None:
        """Have the requests of unwritten lines in memory, and nothing where there are none."""
        if requests:
            self._kept = self._kept or Spool(self._parent)
            self._kept.append(b"".join(to_json(request) + b"\n" for request in requests))
        elif self._kept and not self._unwritten:
            self._kept.remove()
            self._kept = None


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


def _masked(texts: Sequence[str]) -> list[str]:
    """The texts without personal data. One that cannot be masked is left out: it must neither be shown nor keep the others waiting."""
    try:
        return mask_all(texts)[0]
    except Exception:  # whatever numpy or an expression raises over a text that nobody foresaw
        logger.exception("%d texts cannot be masked", len(texts))
        return [text for half in (texts[: len(texts) // 2], texts[len(texts) // 2 :]) for text in _masked(half)] if len(texts) > 1 else [""]


def _described(text: str, masked: str) -> dict[str, Any]:
    return {"characters": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest(), "masked": masked[:MASKED_LENGTH]}


def _place(request: Request) -> tuple[str, date]:
    """Whose file its line goes into: the chain's, of a day."""
    return request["chain"], datetime.fromisoformat(request["at"]).date()


def follow(recorder: Recorder, backlog: Backlog) -> Iterator[tuple[Report, float | None]]:
    """Write group after group, each when the next is asked for: what to report, and the seconds to rest, None until woken.

    Of what is there already a recorder that died may have written some.
    """
    doubtful = backlog.end()
    while True:
        began, old = time.thread_time(), backlog.position < doubtful
        lines = backlog.read(GROUP)
        failed = recorder.write(recorder.missing(_parsed(lines)) if old else _parsed(lines))
        backlog.forget()
        spent = time.thread_time() - began
        rest = min(LONGEST_REST, spent * (1 / SHARE - 1)) if lines else AGAIN if failed else None
        yield Report(backlog.position, len(lines), failed, rest is None), rest


def inherit(recorder: Recorder, parent: Path) -> None:
    """Write what gateways left that died together with their recorders, or recorders whose disk did not take it."""
    for left in abandoned(parent):
        while lines := left.read(GROUP):
            recorder.write(recorder.missing(_parsed(lines)))
        left.remove()


def settle(folder: Path, seconds: float = SETTLED) -> list[Path]:
    """Have what was answered before now in its file: writes what gateways left that are dead, and waits for those that live.

    Returns what is still in memory after so many seconds.
    """
    parent, until = place(folder), time.monotonic() + seconds
    recorder = Recorder(folder)
    inherit(recorder, parent)
    recorder.close()
    waiting = pending(parent)
    while waiting and time.monotonic() < until:
        time.sleep(LONGEST_REST / 5)
        waiting = {path: size for path, size in waiting.items() if not gone(path, size)}
    return list(waiting)


def _parsed(lines: Sequence[bytes]) -> list[Request]:
    return [from_json(line) for line in lines]


def main() -> None:
    """Write what comes until nothing can come any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group; the gateway still has requests in flight then
    os.nice(NICE)
    mask_all([""])  # loads what it needs
    gc.freeze()  # what is loaded stays: looking through it for garbage stopped the log for 20 ms now and then
    recorder, own = Recorder(Path(sys.argv[1])), Path(sys.argv[2])
    backlog = Backlog(own)
    inherit(recorder, own.parent)
    ended = False
    for report, rest in follow(recorder, backlog):
        with suppress(BrokenPipeError):  # the gateway was killed
            os.write(sys.stdout.fileno(), json.dumps(report).encode() + b"\n")
        if ended and not report.requests:
            break
        ended = ended or _ended(rest)
    recorder.close()
    backlog.remove()


def _ended(rest: float | None) -> bool:
    """Rest; whether standard input has ended, which ends the rest too."""
    until = None if rest is None else time.monotonic() + rest
    while select.select([sys.stdin], [], [], None if until is None else max(0.0, until - time.monotonic()))[0]:
        if not os.read(sys.stdin.fileno(), 1 << 16):
            return True
        if until is None:
            return False
    return False


if __name__ == "__main__":
    main()
