"""The request log: one line a request, on the disk before the answer leaves; texts masked, never as they came (`recorder`)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llm_assets.serving.group_commit import GroupCommit

LINE = 1 << 24  # bytes of the recorder's answer to a group at most


class RequestLogError(OSError):
    """A request could not be recorded, so it is not answered."""


def log_folder(home: Path) -> Path:
    """Where the request logs of a data root stand: ``<chain>/<UTC date>.jsonl``."""
    return home / "serving" / "log"


class RequestLog:
    """Hands requests to the recorder, a process of its own, those that end together as one group; starts it anew when it dies."""

    def __init__(self, folder: Path, watch: Callable[[int], None] = lambda requests: None) -> None:
        """``watch`` is told the size of each group."""
        self._folder = folder
        self._group = GroupCommit(self._commit)
        self._watch = watch
        self._recorder: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    async def write(self, request: Mapping[str, Any]) -> None:
        """Return once a request is on the disk: a line of the log but for its time, with texts as they came.

        Raises ``RequestLogError`` naming the file when it cannot be written.
        """
        await self._group.submit(request)

    async def start(self) -> asyncio.subprocess.Process:
        """The recorder, which takes half a second to start where none runs."""
        async with self._starting:
            if self._recorder is None:
                command = [sys.executable, "-m", "llm_assets.serving.recorder", str(self._folder)]
                variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # threads would spin over small products
                pipe = asyncio.subprocess.PIPE
                self._recorder = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=variables, limit=LINE)
            return self._recorder

    async def close(self) -> None:
        """Let what is being written end, and the recorder with it."""
        await self._group.end()
        await self._stop()

    async def _commit(self, requests: list[Mapping[str, Any]]) -> list[Exception | None]:
        self._watch(len(requests))
        try:
            errors = await self._exchange(requests)
        except (OSError, ValueError) as error:
            await self._stop()
            errors = [f"the recorder of {self._folder} ended ({error or type(error).__name__}); another one is started"] * len(requests)
        return [RequestLogError(error) if error else None for error in errors]

    async def _exchange(self, requests: list[Mapping[str, Any]]) -> list[str | None]:
        recorder = await self.start()
        assert recorder.stdin and recorder.stdout
        recorder.stdin.write(json.dumps(requests, ensure_ascii=False).encode() + b"\n")
        await recorder.stdin.drain()
        answer: list[str | None] = json.loads(await recorder.stdout.readline())  # nothing to read is no JSON
        return answer

    async def _stop(self) -> None:
        """End the recorder by ending its input."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            assert recorder.stdin
            recorder.stdin.close()
            await recorder.wait()
