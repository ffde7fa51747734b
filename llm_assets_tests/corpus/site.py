"""A web site on loopback that tells what it was asked."""

from __future__ import annotations

import email.utils
import hashlib
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple


class Answer(NamedTuple):
    """What the site answers to a path."""

    content: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = {}
    cut: int = 0  # bytes that are promised and not sent


class Site:
    """Answers each path with what stands in ``answers``, a list one after the other; without one, with 404."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append((self.path, dict(self.headers.items())))
                answer = site._next(self.path)
                tag = f'"{hashlib.sha256(answer.content).hexdigest()[:8]}"'
                if answer.status == 200 and self.headers.get("If-None-Match") == tag:
                    answer = Answer(status=304)
                self.send_response(answer.status)
                self.send_header("ETag", tag)
                self.send_header("Last-Modified", email.utils.formatdate(0, usegmt=True))
                self.send_header("Content-Length", str(len(answer.content) + answer.cut))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.content)
                self.close_connection = self.close_connection or bool(answer.cut)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, path: str) -> str:
        return self.address + path

    def put(self, path: str, content: str, kind: str = "text/html") -> str:
        """A page at a path; returns its address."""
        self.answers[path] = Answer(content.encode(), headers={"Content-Type": f"{kind}; charset=utf-8"})
        return self.url(path)

    def paths(self) -> list[str]:
        """What was asked for, robots.txt aside."""
        return [path for path, _ in self.asked if path != "/robots.txt"]

    def _next(self, path: str) -> Answer:
        answers = self.answers.get(path, Answer(status=404))
        if isinstance(answers, Answer):
            return answers
        return answers.pop(0) if len(answers) > 1 else answers[0]


def article(words: str) -> str:
    """A page whose main text is easily told from its frame."""
    paragraph = f"{words} " * 30
    return f"<html><head><title>t</title></head><body><nav>Home | About</nav><article><h1>Head</h1><p>{paragraph}</p></article></body></html>"


def feed(*urls: str) -> str:
    """An RSS 2.0 feed of these pages."""
    return f"<rss version='2.0'><channel><title>t</title>{''.join(f'<item><link>{url}</link></item>' for url in urls)}</channel></rss>"


def sitemap(*urls: str, index: bool = False) -> str:
    """A sitemap of these pages, or an index of these sitemaps."""
    root, entry = ("sitemapindex", "sitemap") if index else ("urlset", "url")
    listed = "".join(f"<{entry}><loc>{url}</loc></{entry}>" for url in urls)
    return f"<?xml version='1.0' encoding='UTF-8'?><{root} xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>{listed}</{root}>"
