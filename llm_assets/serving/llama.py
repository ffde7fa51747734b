"""The process that generates, kept alive: started with an engine, ended with it, started anew when it dies; and one exchange with it."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import h11

logger = logging.getLogger(__name__)

TOGETHER = 0.02  # seconds between two looks at what was generated: tokens that came in between travel as one piece
PAUSE = 1.0  # seconds from a death to the next start, doubled with each that follows one soon, up to:
LONGEST_PAUSE = 30.0
READ = 1 << 16  # bytes
NOTHING: tuple[Any, ...] = (h11.NEED_DATA, h11.PAUSED)  # more must come first


class LlamaError(RuntimeError):
    """The process that generates does not run; another one is being started."""


class RefusedError(RuntimeError):
    """The process that generates refused a request and said why."""


class Supervised(ABC):
    """A server over one model, supervised by a thread. Raises ``LlamaError`` where it does not start the first time."""

    grace: ClassVar[float] = 5.0  # seconds to end in

    def __init__(self, model: Path) -> None:
        self._model = model
        self._key = secrets.token_urlsafe(16)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._address: tuple[str, int] | None = None
        self._process = self._start()
        threading.Thread(target=self._watch, daemon=True, name="engine").start()

    @abstractmethod
    def _start(self) -> subprocess.Popen[str]:
        """Start it and note ``_address`` once it can be asked; its standard input is its lifeline. Raises ``LlamaError``."""

    @property
    def pid(self) -> int:
        """The process that runs, or that ran last."""
        return self._process.pid

    def close(self) -> None:
        """End the process; returns when it has ended."""
        self._closed.set()
        with self._lock:
            end(self._process, self.grace)

    async def ask(self, path: str, body: Mapping[str, Any] | Sequence[Any]) -> Any:
        """One answer as a JSON value. Raises ``RefusedError`` and ``LlamaError``."""
        return json.loads(b"".join([piece async for piece in self._exchange(path, body)]))

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[list[dict[str, Any]]]:
        """Server-sent events as they come, those of ``TOGETHER`` seconds in one list. Closing this frees the slot. Raises like ``ask``."""
        rest = b""
        async with aclosing(self._exchange(path, {**body, "stream": True}, TOGETHER)) as pieces:
            async for piece in pieces:
                *whole, rest = (rest + piece).split(b"\n\n")
                events = [json.loads(line[6:]) for line in whole if line.startswith(b"data: {")]
                if events:
                    yield events

    async def _exchange(self, path: str, body: Mapping[str, Any] | Sequence[Any], interval: float = 0.0) -> AsyncGenerator[bytes]:
        """The body of an answer, piece by piece, ``interval`` seconds apart at least.

        Raises ``RefusedError`` for a status that blames the request, ``LlamaError`` for one that blames the process, and where it breaks off.
        """
        if self._address is None:
            raise LlamaError("the process that generates has died, another one is being started")
        try:
            reader, writer = await asyncio.open_connection(*self._address)
        except OSError as error:
            raise LlamaError(f"the process that generates does not answer ({error})") from error
        connection = h11.Connection(h11.CLIENT)
        content = json.dumps(body).encode()
        headers = {"Host": "llama", "Content-Type": "application/json", "Content-Length": str(len(content)), "Authorization": f"Bearer {self._key}"}
        try:
            head = h11.Request(method="POST", target=path, headers=list(headers.items()))
            for event in (head, h11.Data(data=content), h11.EndOfMessage()):
                writer.write(connection.send(event) or b"")
            status, found = 0, b""
            while True:
                began = time.monotonic()
                data = await reader.read(READ)
                connection.receive_data(data)
                while (heard := connection.next_event()) not in NOTHING:
                    if isinstance(heard, h11.Response):
                        status = heard.status_code
                    elif isinstance(heard, h11.Data):
                        found += heard.data
                    elif isinstance(heard, h11.EndOfMessage):
                        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                            raise LlamaError(f"the process that generates failed ({_said(found)})")
                        if status != HTTPStatus.OK:
                            raise RefusedError(_said(found))
                        yield bytes(found)
                        return
                    elif isinstance(heard, h11.ConnectionClosed):
                        raise LlamaError("the process that generates died while it answered")
                if found and status == HTTPStatus.OK:
                    yield bytes(found)
                    found = b""
                    await asyncio.sleep(max(0.0, interval - (time.monotonic() - began)))
        except (h11.RemoteProtocolError, ConnectionError) as error:
            raise LlamaError("the process that generates died while it answered") from error
        finally:
            writer.close()

    def _watch(self) -> None:
        """Start another one whenever the process dies, at once after a long life, later and later after short ones."""
        pause = 0.0
        while True:
            began = time.monotonic()
            status = self._process.wait()
            self._address = None
            if self._closed.is_set():
                return
            logger.error("the process that generates (%s) died with status %s; another one is started", self._model, status)
            pause = 0.0 if time.monotonic() - began > LONGEST_PAUSE else min(max(2 * pause, PAUSE), LONGEST_PAUSE)
            while not self._restarted(pause):
                if self._closed.is_set():
                    return
                pause = min(max(2 * pause, PAUSE), LONGEST_PAUSE)

    def _restarted(self, pause: float) -> bool:
        if self._closed.wait(pause):
            return False
        with self._lock:
            if not self._closed.is_set():
                try:
                    self._process = self._start()
                    return True
                except LlamaError as error:
                    logger.error("%s", error)
        return False


class Llama(Supervised):
    """llama.cpp's server over one GGUF file; ``adapters`` are files of LoRA beside it, which a request names by their places."""

    def __init__(self, model: Path, context: int, slots: int, adapters: Sequence[Path] = ()) -> None:
        self._named = " with ".join(map(str, (model, *adapters)))
        command = [sys.executable, "-m", "llm_assets.serving.llama_server", str(model), str(context), str(slots)]
        self._command = [*command, *map(str, adapters)]
        super().__init__(model)

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin and process.stdout
        try:
            process.stdin.write(f"{self._key}\n")
            process.stdin.flush()
            address = urlsplit(process.stdout.readline().strip())
        except OSError:
            address = urlsplit("")
        if not address.port:
            end(process)
            raise LlamaError(f"{self._named} does not load in llama.cpp (status {process.returncode}): materialize quantized_model again")
        self._address = str(address.hostname), address.port
        return process


def end(process: subprocess.Popen[str], seconds: float = 5) -> None:
    """Cut its lifeline, and ``seconds`` later its life."""
    assert process.stdin
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
