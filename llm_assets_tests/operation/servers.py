"""Servers on loopback that keep what they are sent: one for webhooks and counters, one for e-mail."""

from __future__ import annotations

import base64
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Web(ThreadingHTTPServer):
    """Keeps the bodies POSTed to it and answers ``status``; GET answers ``page``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.page = 200, ""
        self.bodies: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Web

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(json.loads(body))
        self._answer(self.server.status, '{"ok": true, "ts": "1"}')

    def do_GET(self) -> None:
        self._answer(200, self.server.page)

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Mail(socketserver.ThreadingTCPServer):
    """An SMTP server (RFC 5321) that takes AUTH PLAIN from one user and keeps messages; with ``tls`` it offers STARTTLS (RFC 3207)."""

    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Smtp)
        self.messages: list[bytes] = []
        self.private: list[bool] = []  # whether each of them came through TLS
        self.tls: ssl.SSLContext | None = None
        self.login = ("operator", "secret")


class _Smtp(socketserver.StreamRequestHandler):
    server: Mail

    def handle(self) -> None:
        self._say("220 loopback")
        while line := self.rfile.readline().decode().strip():
            word = line.split()[0].upper()
            if word == "EHLO":
                self._say("250-loopback\r\n" + ("250-STARTTLS\r\n" if self.server.tls else "") + "250 AUTH PLAIN")
            elif word == "STARTTLS" and self.server.tls:
                self._say("220 go on")
                try:
                    self.request = self.server.tls.wrap_socket(self.request, server_side=True)
                except ssl.SSLError:
                    return  # the client does not trust us
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", buffering=0)
            elif word == "AUTH":
                given = base64.b64decode(line.split()[2]).decode().split("\0")[1:]
                self._say("235 welcome" if tuple(given) == self.server.login else "535 who are you")
            elif word == "DATA":
                self._say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.messages.append(b"".join(lines))
                self.server.private.append(isinstance(self.request, ssl.SSLSocket))
                self._say("250 kept")
            elif word == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 fine")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator[None]:
    """Serve inside the block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
