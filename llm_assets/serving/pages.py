"""What artifacts have to show - pages, pictures, the pages of checks - read-only, and to this machine alone."""

from __future__ import annotations

import ipaddress
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse
from starlette.requests import Request

from llm_assets.serving.errors import ApiError

SEALED = {"Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'", "X-Content-Type-Options": "nosniff"}

Link = Annotated[str, PathParameter(pattern=r"^[a-z_]+$")]
Fingerprint = Annotated[str, PathParameter(pattern=r"^[0-9a-f]+$")]
Folder = Literal["pages", "plots", "checks"]
Name = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9_-]+\.(html|png)$")]


def install(app: FastAPI, home: Path) -> None:
    """Serve the pages of the artifacts below a data root, and of the copies it holds of artifacts in a remote store."""

    @app.get("/artifacts/{link}/{fingerprint}/{folder}/{name}")
    def page(link: Link, fingerprint: Fingerprint, folder: Folder, name: Name, request: Request) -> FileResponse:
        """A page that a link or one of its checks wrote; it shows pieces of documents, so it is for this machine only."""
        if request.client is None or not _is_loopback(request.client.host):
            raise ApiError(HTTPStatus.FORBIDDEN, "pages of artifacts are shown to this machine alone: open them there, or through a tunnel")
        place = Path(link, fingerprint, folder, name)
        path = next((root / place for root in (home / "artifacts", *home.glob("cache/*")) if (root / place).is_file()), None)
        if path is None:
            raise ApiError(HTTPStatus.NOT_FOUND, f"{link} {fingerprint} has no {folder}/{name}: it may have been deleted by `llm-assets gc`")
        return FileResponse(path, headers=SEALED)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a test client or a Unix socket has a name instead
        return False
