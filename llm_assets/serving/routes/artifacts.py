"""What artifacts and acts have to show - pages, pictures, pages of checks - read-only, and to operators alone: without keys those of this machine."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse

from llm_assets.serving.errors import ApiError, documented

SEALED = {"Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'", "X-Content-Type-Options": "nosniff"}

Link = Annotated[str, PathParameter(pattern=r"^[a-z_]+$")]
Fingerprint = Annotated[str, PathParameter(pattern=r"^[0-9a-f]+$")]
Folder = Literal["pages", "plots", "checks"]
Chain = Annotated[str, PathParameter(pattern=r"^[a-z][a-z0-9_]*$")]
Run = Annotated[str, PathParameter(pattern=r"^[0-9A-Za-z-]+$")]
Name = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9_-]+\.(html|png)$")]


def install(app: FastAPI, home: Path) -> None:
    """Serve the pages of the artifacts below a data root, of the copies it holds of artifacts in a remote store, of its acts and its audits."""

    @app.get("/artifacts/{link}/{fingerprint}/{folder}/{name}", response_class=FileResponse, responses=documented(400, 404))
    def page(link: Link, fingerprint: Fingerprint, folder: Folder, name: Name) -> FileResponse:
        """A page that a link or one of its checks wrote; it shows pieces of documents, so it is for operators only."""
        place = Path(link, fingerprint, folder, name)
        path = next((root / place for root in (home / "artifacts", *home.glob("cache/*")) if (root / place).is_file()), None)
        if path is None:
            raise ApiError(HTTPStatus.NOT_FOUND, f"{link} {fingerprint} has no {folder}/{name}: it may have been deleted by `llm-assets gc`")
        return FileResponse(path, headers=SEALED)

    @app.get("/acts/{chain}/{link}/{run}/{folder}/{name}", response_class=FileResponse, responses=documented(400, 404))
    def act_page(chain: Chain, link: Link, run: Run, folder: Folder, name: Name) -> FileResponse:
        """A page that an act of a chain wrote in a run, such as the look for drift."""
        path = home / "acts" / chain / link / run / folder / name
        if not path.is_file():
            raise ApiError(HTTPStatus.NOT_FOUND, f"{link} of {chain} left no {folder}/{name} in run {run}: `llm-assets gc` keeps the newest")
        return FileResponse(path, headers=SEALED)

    @app.get("/audit/{name}", response_class=FileResponse, responses=documented(400, 404))
    def audit_page(name: Name) -> FileResponse:
        """What `llm-assets trace`, `diff`, `verify`, `forget` or `reproduce` answered, where it was asked for a page, and the asset of that name."""
        path = home / "audit" / "pages" / name
        if not path.is_file():
            raise ApiError(HTTPStatus.NOT_FOUND, f"no page {name}: ask the question with --page")
        return FileResponse(path, headers=SEALED)
