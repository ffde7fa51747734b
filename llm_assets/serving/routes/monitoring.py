"""What machines that watch the gateway ask: whether it lives, whether it is ready, and its figures."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from llm_assets.serving.errors import ErrorBody, documented
from llm_assets.serving.gateway import Gateway
from llm_assets.serving.wire import Alive, Readiness


def install(app: FastAPI, gateway: Gateway) -> None:
    """Serve a gateway's metrics and probes."""

    @app.get("/metrics", response_class=PlainTextResponse, responses=documented())
    async def metrics() -> Response:
        """The gateway's figures in Prometheus' text format."""
        text, kind = gateway.metrics.text()
        return Response(text, media_type=kind)

    @app.get("/healthz", response_model=Alive, responses=documented())
    async def healthz() -> JSONResponse:
        """Whether the process is alive."""
        return JSONResponse({"alive": True})

    @app.get("/readyz", response_model=Readiness, responses={**documented(), 503: {"model": Readiness | ErrorBody, "description": "Not yet"}})
    async def readyz() -> JSONResponse:
        """503 until every desired chain is served; a refused new release shows as ``error`` beside the live one."""
        status = HTTPStatus.OK if gateway.reconciler.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return JSONResponse({"ready": gateway.reconciler.ready, "chains": gateway.reconciler.status()}, status)
