"""The request log: one line a request, kept before the answer leaves; texts masked, never as they came (`recorder`)."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from llm_assets.serving.dated_files import dated_files, last_lines
from llm_assets.serving.spool import Spool, place

MASKED_LENGTH = 2000  # characters of a masked text that are kept
CAPACITY = 64 << 20  # bytes of requests that may wait to be written, a minute of 2,000 short ones a second; large ones take up to twice the memory
REPORT = 1 << 24  # bytes of a report at most: it names each chain that fails
PAUSE = 0.5  # seconds after which a recorder that ended has a successor
SPEAKERS = {"system", "user", "assistant"}  # labels of the turns before an answer that was generated

logger = logging.getLogger(__name__)


class RequestLogError(OSError):
    """A request could not be recorded, so it is not answered."""


def log_folder(home: Path) -> Path:
    """Where the request logs of a data root stand: ``<chain>/<UTC date>.jsonl``."""
    return home / "serving" / "log"


def newest_texts(home: Path, chain: str, most: int) -> list[str]:
    """The newest texts that a chain was asked, newest first, masked as they stand in its log; one that came twice counts twice."""
    return list(itertools.islice(_texts_backwards(home, chain, most), most))


def newest_conversations(home: Path, chain: str, most: int) -> list[list[dict[str, str]]]:
    """The newest conversations that a chain that talks was to go on with, newest first, as OpenAI's messages, masked as they stand in its log.

    Those that an adapter was asked to go on with are passed over: they are of its tasks.
    """
    return list(itertools.islice(_conversations_backwards(home, chain, most), most))


def _conversations_backwards(home: Path, chain: str, lines: int) -> Iterator[list[dict[str, str]]]:
    for path in reversed(list(dated_files(log_folder(home), chain))):
        for line in last_lines(path, lines):
            texts, labels = line.get("texts"), line.get("labels")
            if line.get("adapter"):
                continue
            if isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels) > 1 and set(labels[1:]) <= SPEAKERS:
                said = [text["masked"] for text in texts[1:] if isinstance(text, dict) and isinstance(text.get("masked"), str)]
                if len(said) == len(labels) - 1:  # none was erased
                    yield [{"role": role, "content": content} for role, content in zip(labels[1:], said, strict=True)]


def _texts_backwards(home: Path, chain: str, lines: int) -> Iterator[str]:
    """The texts of the last ``lines`` requests of each day, the newest day first; erased ones and what is no request are passed over."""
    for path in reversed(list(dated_files(log_folder(home), chain))):
        for line in last_lines(path, lines):
            texts = line.get("texts")
            for text in reversed(texts if isinstance(texts, list) else []):
                if isinstance(text, dict) and isinstance(text.get("masked"), str):
                    yield text["masked"]


class RequestLog:
    """Hands requests to the recorder, a process of its own, and starts it anew when it dies.

    A request is in a `spool` when ``write`` returns: no end of this process or of the recorder loses it. In its file it is when the recorder has
    come so far, a quarter of a second later at most where it keeps up.
    """

    def __init__(self, folder: Path, watch: Callable[[int], None] = lambda requests: None) -> None:
        """``watch`` is told how many requests the recorder wrote together."""
        self._folder, self._watch = folder, watch
        self._spool: Spool | None = None
        self._written = 0  # bytes of the spool that stand in files
        self._failed: Mapping[str, str] = {}  # by chain, why its newest lines are in no file
        self._recorder: asyncio.subprocess.Process | None = None
        self._rests = False  # until it is woken
        self._keeper: asyncio.Task[None] | None = None
        self._ready, self._over = asyncio.Event(), False

    def write(self, request: Mapping[str, Any]) -> None:
        """Keep a request: a line of the log but for its time, with texts as they came.

        Raises ``RequestLogError`` where it cannot be kept, where the file of its chain cannot be written, which is named, where the
        recorder is far behind, and once the log is closed.
        """
        if self._over:
            raise RequestLogError("the gateway ends")
        if failure := self._failed.get(request["chain"]):
            raise RequestLogError(failure)
        if self.backlog > CAPACITY:
            raise RequestLogError(f"the recorder of {self._folder} is {CAPACITY >> 20} MiB behind: the machine is too busy, or its disk too slow")
        line = {"id": request["id"], "at": datetime.now(UTC).isoformat(), **request}
        try:
            self._open().append(to_json(line) + b"\n")
        except (OSError, ValueError, TypeError) as error:
            raise RequestLogError(f"the recorder of {self._folder} cannot be told ({error})") from error
        if self._rests:
            self._wake()

    async def start(self) -> None:
        """Return once a recorder runs, which has then written what was left by a gateway and a recorder that both died; at once where none can."""
        try:
            self._open()
        except OSError as error:  # which each request is told
            logger.error("no request can be recorded: %s", error)
        else:
            await self._ready.wait()

    async def close(self) -> None:
        """Return once all is written and the recorder has ended."""
        self._over, self._rests = True, False
        if self._recorder:
            self._hang_up(self._recorder)
        if self._keeper:
            await self._keeper
        if self._spool:
            self._spool.close()

    @property
    def backlog(self) -> int:
        """Bytes of requests that are in no file yet."""
        return self._spool.position - self._written if self._spool else 0

    @property
    def recorder(self) -> int | None:
        """The recorder's process, while there is one."""
        return self._recorder.pid if self._recorder else None

    def _open(self) -> Spool:
        if self._spool is None:
            self._spool = Spool(place(self._folder))
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep(self._spool))
        return self._spool

    async def _keep(self, spool: Spool) -> None:
        """Have a recorder run until the log is closed."""
        while True:
            try:
                await self._follow(await self._started(spool), spool)
            except (OSError, ValueError) as error:
                logger.error("the recorder of %s cannot be heard: %s", self._folder, error)
            self._recorder = None
            if self._over:
                break
            logger.error("the recorder of %s ended; another one is started", self._folder)
            await asyncio.sleep(PAUSE)
        self._ready.set()

    async def _started(self, spool: Spool) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", "llm_assets.serving.recorder", str(self._folder), str(spool.folder)]
        variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # threads would spin over small products
        pipe = asyncio.subprocess.PIPE
        self._recorder = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=variables, limit=REPORT)
        if self._over:
            self._hang_up(self._recorder)
        return self._recorder

    async def _follow(self, recorder: asyncio.subprocess.Process, spool: Spool) -> None:
        """Heed what the recorder reports, until it ends."""
        assert recorder.stdout
        try:
            while line := await recorder.stdout.readline():
                self._written, requests, self._failed, self._rests = json.loads(line)
                for error in self._failed.values():
                    logger.error("%s", error)
                if requests:
                    self._watch(requests)
                if self._rests and spool.position > self._written:  # it looked before that was appended
                    self._wake()
                self._ready.set()
        finally:  # no two of them read one spool
            self._rests = False
            self._hang_up(recorder)
            await recorder.wait()

    def _wake(self) -> None:
        self._rests = False
        assert self._recorder and self._recorder.stdin
        with suppress(OSError, RuntimeError):  # it has just died: its successor needs no waking
            self._recorder.stdin.write(b"\n")

    @staticmethod
    def _hang_up(recorder: asyncio.subprocess.Process) -> None:
        assert recorder.stdin
        recorder.stdin.close()  # it still writes what there is
