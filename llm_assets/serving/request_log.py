"""The request log: one line a request, written before the answer leaves; texts masked, never as they came (`recorder`)."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_assets.serving.dated_files import dated_files, last_lines

MASKED_LENGTH = 2000  # characters of a masked text that are kept
LINE = 1 << 24  # bytes of the recorder's answer to a line at most
SPEAKERS = {"system", "user", "assistant"}  # labels of the turns before an answer that was generated

Written = asyncio.Future[str | None]  # why a request is not in its file; None: it is


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

    Those that end in one round of the event loop go as one line. The next line does not wait for the answer to the one before: what
    stands in the pipe while the recorder flushes is its next group.
    """

    def __init__(self, folder: Path, watch: Callable[[int], None] = lambda requests: None) -> None:
        """``watch`` is told how many requests each line holds."""
        self._folder = folder
        self._watch = watch
        self._waiting: list[tuple[Mapping[str, Any], Written]] = []  # until this round of the event loop is over
        self._sent: deque[list[Written]] = deque()  # the lines that the recorder has yet to answer
        self._recorder: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._sender: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None

    async def write(self, request: Mapping[str, Any]) -> None:
        """Return once a request is written: a line of the log but for its time, with texts as they came.

        Raises ``RequestLogError`` naming the file when it cannot be written.
        """
        written: Written = asyncio.get_running_loop().create_future()
        self._waiting.append((request, written))
        if len(self._waiting) == 1:
            self._sender = asyncio.get_running_loop().create_task(self._send())
        if error := await written:
            raise RequestLogError(error)

    async def start(self) -> asyncio.subprocess.Process:
        """The recorder, which takes half a second to start where none runs."""
        async with self._starting:
            if self._recorder is None:
                command = [sys.executable, "-m", "llm_assets.serving.recorder", str(self._folder)]
                variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # threads would spin over small products
                pipe = asyncio.subprocess.PIPE
                self._recorder = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=variables, limit=LINE)
                self._listener = asyncio.get_running_loop().create_task(self._listen(self._recorder))
            return self._recorder

    async def close(self) -> None:
        """Let what is being written end, and the recorder with it."""
        if self._sender:
            await self._sender
        if self._recorder and self._recorder.stdin:
            self._recorder.stdin.close()  # what stands in the pipe is still written, and answered
        if self._listener:
            await self._listener

    async def _send(self) -> None:
        try:
            recorder = await self.start()
            content = json.dumps([request for request, _ in self._waiting], ensure_ascii=False).encode() + b"\n"
        except (OSError, ValueError, TypeError) as error:
            self._tell(self._taken(), itertools.repeat(f"the recorder of {self._folder} cannot be told ({error})"))
            return
        line = self._taken()
        self._watch(len(line))
        self._sent.append(line)
        assert recorder.stdin
        recorder.stdin.write(content)

    def _taken(self) -> list[Written]:
        waiting, self._waiting = self._waiting, []
        return [written for _, written in waiting]

    async def _listen(self, recorder: asyncio.subprocess.Process) -> None:
        """Tell those who wait what the recorder says of their requests, and when it ends."""
        assert recorder.stdout and recorder.stdin
        while answer := await recorder.stdout.readline():
            self._tell(self._sent.popleft(), json.loads(answer))
        self._recorder = None
        while self._sent:
            self._tell(self._sent.popleft(), itertools.repeat(f"the recorder of {self._folder} ended; another one is started"))
        recorder.stdin.close()
        await recorder.wait()

    def _tell(self, line: Sequence[Written], errors: Iterable[str | None]) -> None:
        for written, error in zip(line, errors, strict=False):  # an error for all may be repeated without end
            if not written.done():  # whoever waited for it may have gone
                written.set_result(error)
