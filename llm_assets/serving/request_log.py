"""The request log: one line a request, on the disk before the answer leaves; texts masked, never as they came (`recorder`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llm_assets.serving.group_commit import GroupCommit


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
        self._group = GroupCommit(self._commit, "request-log")
        self._watch = watch
        self._recorder: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()

    async def write(self, request: Mapping[str, Any]) -> None:
        """Return once a request is on the disk: a line of the log but for its time, with texts as they came.

        Raises ``RequestLogError`` naming the file when it cannot be written.
        """
        await self._group.submit(request)

    def start(self) -> None:
        """Start the recorder before it is needed, which takes half a second."""
        self._process()

    def close(self) -> None:
        """Let what is being written end, and the recorder with it."""
        self._group.close()
        self._stop()

    def _commit(self, requests: list[Mapping[str, Any]]) -> list[Exception | None]:
        self._watch(len(requests))
        try:
            errors = self._exchange(requests)
        except (OSError, ValueError) as error:
            self._stop()
            errors = [f"the recorder of {self._folder} ended ({error or type(error).__name__}); another one is started"] * len(requests)
        return [RequestLogError(error) if error else None for error in errors]

    def _exchange(self, requests: list[Mapping[str, Any]]) -> list[str | None]:
        recorder = self._process()
        assert recorder.stdin and recorder.stdout
        recorder.stdin.write(json.dumps(requests, ensure_ascii=False).encode() + b"\n")
        recorder.stdin.flush()
        answer: list[str | None] = json.loads(recorder.stdout.readline())  # nothing to read is no JSON
        return answer

    def _process(self) -> subprocess.Popen[bytes]:
        with self._starting:
            if self._recorder is None:
                command = [sys.executable, "-m", "llm_assets.serving.recorder", str(self._folder)]
                variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # threads would spin over small products
                self._recorder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables)
            return self._recorder

    def _stop(self) -> None:
        """End the recorder by ending its input."""
        with self._starting:
            recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        assert recorder.stdin and recorder.stdout
        for pipe in (recorder.stdin, recorder.stdout):
            with suppress(OSError):  # where it died with something unread
                pipe.close()
        recorder.wait()
