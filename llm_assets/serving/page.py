"""The page at ``/``, which asks classifiers, and the one at ``/chat``, which talks to decoders.

Three files each, no build step, and nothing from elsewhere; their policy lets no script in but the gateway's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import Response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/chat": ("chat_page.html", "text/html"),
    "/chat_page.css": ("chat_page.css", "text/css"),
    "/chat_page.js": ("chat_page.js", "text/javascript"),
}


def install(app: FastAPI) -> None:
    """Serve the page and what it loads."""
    for path, (name, kind) in FILES.items():
        content = (files(__package__) / name).read_bytes()
        app.add_api_route(path, _serving(content, kind), include_in_schema=False)


def _serving(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def serve() -> Response:
        return Response(content, media_type=kind, headers={"Content-Security-Policy": POLICY})

    return serve
