"""The pages ``/`` (asks classifiers), ``/chat`` (talks to decoders), ``/label`` and ``/status``: files of ``site/``, no build step.

They hold no data; what they show they ask of the routes, with the key that their user has. Their policy lets no script in but the gateway's own.
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
SITE = files("llm_assets.serving") / "site"
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
FILES = {
    "/": "ask.html",
    "/chat": "chat.html",
    "/label": "label.html",
    "/status": "status.html",
    **{f"/{name}": name for name in ("site.css", "chat.css", "shared.js", "ask.js", "chat.js", "label.js", "status.js")},
}


def install(app: FastAPI) -> None:
    """Serve the pages and what they load."""
    for path, name in FILES.items():
        content = (SITE / name).read_bytes()
        app.add_api_route(path, _serving(content, KINDS[name.rpartition(".")[2]]), include_in_schema=False)


def _serving(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def serve() -> Response:
        return Response(content, media_type=kind, headers={"Content-Security-Policy": POLICY})

    return serve
