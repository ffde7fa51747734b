"""OpenTelemetry: a span a request, where the standard ``OTEL_*`` variables name an exporter; nothing, at no cost, where they do not.

``OTEL_EXPORTER_OTLP_ENDPOINT`` switches it on (OTLP over HTTP); the SDK reads the others, such as ``OTEL_SERVICE_NAME``,
``OTEL_TRACES_SAMPLER`` and ``OTEL_EXPORTER_OTLP_HEADERS``. A span holds route, status, chain, release and tokens, and nothing that a
client sent but its trace's id (W3C Trace Context).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_assets.serving.shortcut import PATH

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SERVICE = "llm_assets.gateway"  # unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say otherwise
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_noted: ContextVar[dict[str, Any] | None] = ContextVar("noted", default=None)


def is_configured() -> bool:
    """Whether the environment asks for spans."""
    switched_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    return not switched_off and any(os.environ.get(name) for name in ENDPOINTS)


def note(**attributes: Any) -> None:
    """Add attributes to the span of the request that is being answered, where it has one."""
    noted = _noted.get()
    if noted is not None:
        noted.update(attributes)


def install(app: FastAPI) -> Callable[[], None]:
    """Trace the requests of an application where the environment asks for it; returns what sends the last spans and ends it."""
    if not is_configured():
        return lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        logger.warning("%s is set, and spans cannot be sent (%s): pip install llm-assets[telemetry]", ENDPOINTS[0], error)
        return lambda: None
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": SERVICE}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    app.add_middleware(Traced, tracer=provider.get_tracer(SERVICE))
    return provider.shutdown


class Traced:
    """ASGI middleware: a span for each request, named by its route and never by its path, which may hold anything."""

    def __init__(self, app: ASGIApp, tracer: Any) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._app, self._tracer, self._contexts = app, tracer, TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and tell of it when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, StatusCode

        status = 500

        async def heard(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"] if name in (b"traceparent", b"tracestate")}
        span = self._tracer.start_span("request", self._contexts.extract(headers), SpanKind.SERVER)
        noted: dict[str, Any] = {}
        token = _noted.set(noted)
        try:
            await self._app(scope, receive, heard)
        finally:
            _noted.reset(token)
            method = scope["method"] if scope["method"] in METHODS else "_OTHER"
            route = PATH if scope["path"] == PATH else getattr(scope.get("route"), "path", None)  # that one is answered before it is routed
            span.update_name(f"{method} {route or 'no route'}")
            told = {"http.request.method": method, "http.route": route, "http.response.status_code": status, **noted}
            span.set_attributes({name: value for name, value in told.items() if value not in (None, "")})
            if status >= 500:
                span.set_status(StatusCode.ERROR)
            span.end()
