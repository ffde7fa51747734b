"""Asks a service over HTTP/1.1 as fast as it answers, from a process of its own.

``python -m benchmarks.load URL CONNECTIONS SECONDS < BODIES`` sends the JSON lines of standard input in turn, each connection
its next one when it has its answer, and prints ``{"rate", "p50_ms", "p99_ms", "count"}``. One thread over raw sockets: a
request costs it 30 microseconds, so that what is measured is the service. Any answer but 200 ends it.
"""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

QUIET = 1.0  # seconds at the beginning that are not counted


class Connection:
    """One connection with one request on its way."""

    def __init__(self, address: tuple[str, int], requests: Iterator[bytes]) -> None:
        self._address, self._requests = address, requests
        self.connect()

    def connect(self) -> None:
        """Open the socket anew, for services that close it after an answer."""
        self.socket = socket.create_connection(self._address, timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self) -> None:
        """Send the next request."""
        self._received = b""
        self.began = time.perf_counter()
        self.socket.sendall(next(self._requests))

    def receive(self) -> bool:
        """Read what came; whether the answer is whole. Raises ``RuntimeError`` for any but 200."""
        self._received += self.socket.recv(1 << 16)
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return False
        if b" 200 " not in head[:16]:
            raise RuntimeError(self._received[:400].decode(errors="replace"))
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        self.closes = b"connection: close" in head.lower()
        return len(body) >= length


def load(url: str, connections: int, seconds: float, bodies: list[bytes]) -> dict[str, float]:
    """Requests a second and the milliseconds of half and of 99% of them."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
    requests = itertools.cycle([f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies])
    selector, latencies = selectors.DefaultSelector(), list[float]()
    for _ in range(connections):
        connection = Connection((str(parts.hostname), int(parts.port or 80)), requests)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.send()
    started = time.perf_counter() + QUIET
    while (moment := time.perf_counter()) < started + seconds:
        for key, _ in selector.select(timeout=10):
            connection = key.data
            if not connection.receive():
                continue
            if moment >= started:
                latencies.append(time.perf_counter() - connection.began)
            if connection.closes:
                selector.unregister(connection.socket)
                connection.socket.close()
                connection.connect()
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send()
    ordered = sorted(latencies)
    half, most = (round(1000 * ordered[int(share * (len(ordered) - 1))], 2) for share in (0.5, 0.99))
    return {"rate": round(len(ordered) / seconds, 1), "p50_ms": half, "p99_ms": most, "count": len(ordered)}


if __name__ == "__main__":
    print(json.dumps(load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.stdin.buffer.read().splitlines())))
