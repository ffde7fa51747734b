"""Every error the gateway answers with has one JSON shape, and bodies have one limit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param


def error_response(status: int, message: str, param: str | None = None) -> JSONResponse:
    """``{"error": {"message", "type", "param", "code"}}``, the shape of OpenAI's and vLLM's servers."""
    kind = HTTPStatus(status).phrase.title().replace(" ", "") + "Error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": status}}, status)


def install(app: FastAPI) -> None:
    """Give an application the one error shape."""

    async def api_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return error_response(error.status, error.message, error.param)

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
        return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "the gateway failed on this request; its log says why")

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)


def _first_problem(problems: Sequence[Any]) -> tuple[str | None, str]:
    """The field and the message of the problem found deepest, which is in the branch of a union that came closest."""
    problem = max(problems, key=lambda problem: len(problem["loc"]))
    if problem["type"] == "json_invalid":
        return None, f"it is not JSON ({problem['ctx']['error']} at character {problem['loc'][-1]})"
    place = [str(part) for part in problem["loc"] if part != "body"]
    return (place[0] if place else None), problem["msg"]


class BodyLimit:
    """ASGI middleware: answers 413 to a body above ``limit`` bytes, whether or not its length was declared."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request's body up to the limit, then hand it on or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        body = b""
        if declared.isdigit() and int(declared) <= self._limit:
            more = True
            while more and len(body) <= self._limit:
                message = await receive()
                if message["type"] != "http.request":
                    return  # the client has gone
                body += message.get("body", b"")
                more = message.get("more_body", False)
        if not declared.isdigit() or int(declared) > self._limit or len(body) > self._limit:
            text = f"the body is longer than {self._limit} bytes: send fewer or shorter texts a request"
            await error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that hands out a body already read, then what follows it."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
