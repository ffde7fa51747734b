"""Where OpenLineage events go: a file a day in the data root, and from there to a server where one is named, which may be away.

The file is the outbox: an event stands in it, a whole line, before anybody is told. A thread sends what a server has not had yet, in order, and
remembers how far it came; what a server did not take is sent with the next event, in this process or a later one. No run waits for it.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from llm_assets.store.files import write_json
from llm_assets.store.journal import now
from llm_assets.tracking.tracker import reason_of

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent
    from openlineage.client.transport import Transport

ANSWER_SECONDS = 5.0  # that a server may take for one event
LAST_SECONDS = 5.0  # that the end of a process waits for what is on its way
AGAIN_SECONDS = 60.0  # before a server that was away is asked again
ONCE = {"total": 0, "connect": 0, "read": 0}  # what did not arrive waits in the outbox: nothing is tried again at once
REFUSED = (400, 413, 422)  # answers by which a server says that it will never take this event
CONFIG = {"facets": {"source_code_location": {"disabled": True}}}  # the client would look for a repository around the working directory


class Emitter:
    """Tells of the materializations of one chain. ``url`` names a server; by default the client's own configuration does, if anything."""

    def __init__(self, home: Path, chain: str, url: str = "") -> None:
        self.folder, self.url = home / "openlineage" / chain, url

    def emit(self, event: RunEvent) -> str | None:
        """Write an event and have it sent. Never raises; returns a warning when the disk or, since last said, the server did not take events."""
        try:
            _client(self.folder).emit(event)
        except Exception as error:  # whatever the client, a filter of its configuration or the disk says
            return f"an OpenLineage event was not written to {self.folder} ({reason_of(error)})"
        return _courier(self.folder, self.url).wake()


class Courier:
    """Takes the outbox of one chain to its server, in a thread while there is something to send."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self._thread: threading.Thread | None = None
        self._transport: Transport | None = None
        self._failed_at = -AGAIN_SECONDS
        self._has_warned = False
        self._warning: str | None = None
        atexit.register(self.close)

    def wake(self) -> str | None:
        """Send what waits, unless that is being done or the server was away just now; returns what went wrong, once a process."""
        rested = time.monotonic() - self._failed_at >= AGAIN_SECONDS
        if rested and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self._work, daemon=True, name=f"openlineage-{self.folder.name}")
            self._thread.start()
        warning, self._warning = self._warning, None
        return warning

    def close(self, seconds: float = LAST_SECONDS) -> None:
        """Wait for what is on its way; what does not arrive by then goes with the next process."""
        if self._thread:
            self._thread.join(seconds)

    def _work(self) -> None:
        try:
            self._transport = self._transport or _server(self.url)
            if self._transport is not None:
                self._deliver(self._transport)
        except Timeout:
            return  # another process is at it
        except Exception as error:  # whatever the client raises: nothing of a run depends on it
            self._failed_at = time.monotonic()
            self._warn(f"OpenLineage's server did not take events ({reason_of(error)}); they stand in {self.folder} and are sent later")

    def _deliver(self, server: Transport) -> None:
        with FileLock(self.folder / "delivered.lock", timeout=0):
            for file, end, line in self._waiting():
                self._send(server, line)
                write_json(self.folder / "delivered.json", {"file": file, "position": end})

    def _send(self, server: Transport, line: bytes) -> None:
        from requests import HTTPError

        try:
            event: Any = json.loads(line)
        except ValueError:
            return  # cut off by a crash
        try:
            server.emit(event)
        except HTTPError as error:
            if error.response is None or error.response.status_code not in REFUSED:
                raise
            self._warn(f"OpenLineage's server refused an event ({reason_of(error)}); it stands in {self.folder} and is not sent again")

    def _warn(self, message: str) -> None:
        if not self._has_warned:
            self._has_warned, self._warning = True, message

    def _waiting(self) -> Iterator[tuple[str, int, bytes]]:
        """Every whole line that was not delivered yet, with its file and where it ends; what is added meanwhile included."""
        file, position = self._delivered()
        for path in sorted(self.folder.glob("*.jsonl")):
            if path.name < file:
                continue
            with path.open("rb") as lines:
                end = lines.seek(position if path.name == file else 0)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    end += len(line)
                    yield path.name, end, line

    def _delivered(self) -> tuple[str, int]:
        try:
            known = json.loads((self.folder / "delivered.json").read_text(encoding="utf-8"))
            return str(known["file"]), int(known["position"])
        except (FileNotFoundError, ValueError, KeyError):
            return "", 0


@cache
def _courier(folder: Path, url: str) -> Courier:
    return Courier(folder, url)


@cache
def _client(folder: Path) -> Any:
    """The client that writes into an outbox; its filters, tags and ``OPENLINEAGE_DISABLED`` count as everywhere."""
    from openlineage.client import OpenLineageClient
    from openlineage.client.serde import Serde
    from openlineage.client.transport import Transport

    class Outbox(Transport):
        """A file a UTC day, an event a line."""

        kind = "outbox"

        def emit(self, event: Any) -> None:
            _append(folder / f"{now()[:10]}.jsonl", Serde.to_json(event).encode() + b"\n")

    return OpenLineageClient(transport=Outbox(), config=CONFIG)


def _append(path: Path, line: bytes) -> None:
    """A line in one write, which the system appends as a whole; not flushed to the disk, since the journals and the ledger are what counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _server(url: str) -> Transport | None:
    """How the server is reached that the YAML or the client's own configuration names; None where neither names one."""
    logging.getLogger("openlineage.client.client").setLevel(logging.ERROR)  # without a server it warns that it will print; it is not asked to
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.http import HttpTransport

    client = OpenLineageClient(config={"transport": {"type": "http", "url": url}} if url else None)
    transport: Transport = client.transport
    if isinstance(transport, HttpTransport):
        transport.timeout = min(transport.timeout, ANSWER_SECONDS)
        transport.config.retry = ONCE
    return None if transport.kind in ("console", "noop") else transport
