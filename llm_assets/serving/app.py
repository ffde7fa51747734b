"""The gateway's ASGI application: its life, the middleware that each request passes, and the routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from llm_assets.serving import errors, telemetry
from llm_assets.serving.access import Access
from llm_assets.serving.gateway import Gateway
from llm_assets.serving.routes import annotation, artifacts, feedback, inference, monitoring, site, status
from llm_assets.serving.shortcut import Shortcut

BODY_LIMIT = 1 << 20  # bytes
BODIES_LIMIT = 64 << 20  # bytes of all bodies that are being read


def create_app(home: Path, address: dict[str, Any] | None = None) -> FastAPI:
    """The application over a data root; with ``address`` (pid, node, host, port, url, started) it also keeps the state file."""
    gateway = Gateway(home, address)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(gateway.run())
        yield
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await gateway.close()
        await asyncio.to_thread(end_telemetry)

    app = FastAPI(title="llm_assets gateway", lifespan=lifespan, docs_url=None, redoc_url=None)  # those pages load scripts from a CDN
    app.state.gateway = gateway
    app.add_middleware(Shortcut, answer=partial(inference.classified, gateway))  # the innermost
    app.add_middleware(errors.BodyLimit, limit=BODY_LIMIT, together=BODIES_LIMIT)
    app.add_middleware(Access, home=home)
    errors.install(app)
    end_telemetry = telemetry.install(app)  # the outermost of all, so that it sees what the others refuse

    inference.install(app, gateway)  # routes are tried in order: the busiest stand first
    feedback.install(app, gateway)
    monitoring.install(app, gateway)
    site.install(app)
    artifacts.install(app, home)
    annotation.install(app, home)
    status.install(app, home, gateway.reconciler, gateway.pulse)
    return app
