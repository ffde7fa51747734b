"""Every error the gateway answers with has one JSON shape, and bodies have one limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

BODY_SECONDS = 10.0  # in which a body must have come; one that trickles would hold its place for ever


SECURITY = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}  # headers of every answer; one to a failure passes by the middleware that adds them to the others


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, param: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.headers = status, message, param, headers


class ErrorDetail(BaseModel):
    """What was wrong, where, and what to do."""

    message: str
    type: str
    param: str | None
    code: int


class ErrorBody(BaseModel):
    """The shape of OpenAI's and vLLM's servers."""

    error: ErrorDetail


def error_response(status: int, message: str, param: str | None = None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An ``ErrorBody``."""
    kind = HTTPStatus(status).phrase.title().replace(" ", "").removesuffix("Error") + "Error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": status}}, status, dict(headers or {}))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the errors a route may answer with, besides those of every route: keys, limits and failures."""
    everywhere = (401, 403, 405, 408, 413, 429, 500, 503)
    return {status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in sorted({*statuses, *everywhere})}


def install(app: FastAPI) -> None:
    """Give an application the one error shape, in what it does and in what its OpenAPI document says."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)  # FastAPI's own answer to a wrong request, which here is 400
        for unused in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(unused, None)
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{}, {"key": []}]  # a gateway without keys asks for none
        return document

    app.openapi = openapi  # type: ignore[method-assign]

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return error_response(error.status_code, f"{request.method} {request.url.path}: {error.detail}; see /openapi.json")

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        place, problem = _first_problem(error.errors())
        message = f'{place or "the body"}: {problem}; send JSON such as {{"model": "reviews", "input": "some text"}}'
        return error_response(HTTPStatus.BAD_REQUEST, message, place)

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "the gateway failed on this request; its log says why", headers=SECURITY)

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)


async def api_error(request: Request, error: Exception) -> JSONResponse:
    """The answer to an ``ApiError``."""
    assert isinstance(error, ApiError)
    return error_response(error.status, error.message, error.param, error.headers)


def _first_problem(problems: Sequence[Any]) -> tuple[str | None, str]:
    """The field and the message of the problem found deepest, which is in the branch of a union that came closest."""
    problem = max(problems, key=lambda problem: len(problem["loc"]))
    if problem["type"] == "json_invalid":
        return None, f"it is not JSON ({problem['ctx']['error']} at character {problem['loc'][-1]})"
    place = [str(part) for part in problem["loc"] if part != "body"]
    return (place[0] if place else None), problem["msg"]


class BodyLimit:
    """ASGI middleware: answers 413 to a body above ``limit`` bytes, whether or not its length was declared.

    Bodies that are being read hold at most ``together`` bytes, so that memory stays small whatever comes; one more gets 429.
    """

    def __init__(self, app: ASGIApp, limit: int, together: int) -> None:
        self._app, self._limit, self._together = app, limit, together
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request's body up to the limit, then hand it on or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size = self._size(scope)
        if size > self._limit:
            await self._too_long(scope, receive, send)
            return
        if self._held + size > self._together:
            text = "the gateway is reading all the bodies that it can hold: come again in a second"
            await error_response(HTTPStatus.TOO_MANY_REQUESTS, text, headers={"Retry-After": "1"})(scope, receive, send)
            return
        self._held += size
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await self._read(receive)
        except TimeoutError:
            text = f"the body did not come within {BODY_SECONDS:g} s"
            await error_response(HTTPStatus.REQUEST_TIMEOUT, text)(scope, receive, send)
            return
        finally:
            self._held -= size
        if body is None:
            return  # the client has gone
        if len(body) > self._limit:
            await self._too_long(scope, receive, send)
            return
        await self._app(scope, replay(body, receive), send)

    def _size(self, scope: Scope) -> int:
        """The bytes that a body is going to have: those declared, else as many as are allowed where there may be one."""
        declared = dict(scope["headers"]).get(b"content-length")
        if declared is None:
            return 0 if scope["method"] in ("GET", "HEAD") else self._limit
        return int(declared) if declared.isdigit() else self._limit + 1

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or its first bytes where it is above the limit."""
        pieces, length, more = list[bytes](), 0, True
        while more and length <= self._limit:
            message = await receive()
            if message["type"] != "http.request":
                return None
            pieces.append(message.get("body", b""))
            length += len(pieces[-1])
            more = message.get("more_body", False)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _too_long(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = f"the body is longer than {self._limit} bytes: send fewer or shorter texts a request"
        await error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)(scope, receive, send)


def replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that hands out a body already read, then what follows it."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again
