"""Asks a service over HTTP/1.1, from a process of its own.

``python -m benchmarks.load URL CONNECTIONS SECONDS [RATE] < BODIES`` sends the JSON lines of standard input in turn and prints
``{"rate", "p50_ms", "p99_ms", "count", "answered", "failed", "slices_p99_ms"}``. Without RATE each connection sends its next request when it
has its answer. With it requests fall due evenly, so many a second, and one that finds no free connection waits, which counts as its
time: a service that stops for a second is seen to delay all that came meanwhile (what Tene calls coordinated omission). One thread
over raw sockets: a request costs it 30 microseconds, so that what is measured is the service.
"""

from __future__ import annotations

import gc
import itertools
import json
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

QUIET = 1.0  # seconds at the beginning that are not counted
SLICE = 10.0  # seconds whose p99 is told by itself


class Connection:
    """One connection with one request on its way."""

    def __init__(self, address: tuple[str, int], requests: Iterator[bytes]) -> None:
        self._address, self._requests = address, requests
        self.connect()

    def connect(self) -> None:
        """Open the socket anew, for services that close it after an answer."""
        self.socket = socket.create_connection(self._address, timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, due: float | None = None) -> None:
        """Send the next request, whose time counts from when it was due."""
        self._received = b""
        self.began = due or time.perf_counter()
        self.socket.sendall(next(self._requests))

    def receive(self) -> bool:
        """Read what came; whether the answer is whole. Raises ``ConnectionError`` where there will be none."""
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise ConnectionError("the service hung up before it answered")
        self._received += piece
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return False
        self.failed = b" 200 " not in head[:16]
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        self.closes = b"connection: close" in head.lower()
        return len(body) >= length


def load(url: str, connections: int, seconds: float, bodies: Sequence[bytes], rate: float | None = None) -> dict[str, Any]:
    """Requests a second, the milliseconds of half and of 99% of them, and how many were answered by anything but 200."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
    requests = itertools.cycle([f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies])
    selector, latencies, answered, failed = selectors.DefaultSelector(), list[tuple[float, float]](), 0, 0
    idle = deque(Connection((str(parts.hostname), int(parts.port or 80)), requests) for _ in range(connections))
    for connection in idle:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    due = time.perf_counter()
    started = due + QUIET
    while (moment := time.perf_counter()) < started + seconds:
        while idle and (rate is None or due <= moment):
            idle.popleft().send(None if rate is None else due)
            due += 1 / rate if rate else 0.0
        for key, _ in selector.select(max(0.0, due - moment) if rate and idle else 1.0):
            connection = key.data
            if not connection.receive():
                continue
            answered += not connection.failed
            failed += connection.failed
            if moment >= started:
                latencies.append((connection.began - started, time.perf_counter() - connection.began))
            if connection.closes:
                selector.unregister(connection.socket)
                connection.socket.close()
                connection.connect()
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            idle.append(connection)
    slices = [[spent for at, spent in latencies if start <= at < start + SLICE] for start in range(0, int(seconds), int(SLICE))]
    whole = [spent for _, spent in latencies]
    return {
        "rate": round(len(whole) / seconds, 1),
        "p50_ms": _percentile(whole, 0.5),
        "p99_ms": _percentile(whole, 0.99),
        "count": len(whole),
        "answered": answered,  # those of the beginning too
        "failed": failed,
        "slices_p99_ms": [_percentile(some, 0.99) for some in slices if some],
    }


def _percentile(seconds: Sequence[float], share: float) -> float:
    """In milliseconds."""
    return round(1000 * sorted(seconds)[int(share * (len(seconds) - 1))], 2)


if __name__ == "__main__":
    url, connections, seconds, *rate = sys.argv[1:]
    bodies = sys.stdin.buffer.read().splitlines()
    gc.disable()  # there is no garbage in cycles, and looking for it among a million latencies stops this client for 150 ms
    print(json.dumps(load(url, int(connections), float(seconds), bodies, float(rate[0]) if rate else None)))
