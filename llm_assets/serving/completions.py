"""Chat completions and completions as OpenAI has them: whole or streamed, recorded before they end."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any, TypeVar

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Send

from llm_assets.serving.answer import Answer, ChatAnswer, CompletionAnswer, Events
from llm_assets.serving.answers import new_id
from llm_assets.serving.apart import apart
from llm_assets.serving.completion_wire import ChatRequest, CompletionRequest
from llm_assets.serving.desk import Desk
from llm_assets.serving.engines import generator_of, models_of
from llm_assets.serving.errors import ApiError, documented, error_response
from llm_assets.serving.keys import Key
from llm_assets.serving.llama import LlamaError, RefusedError
from llm_assets.serving.metrics import Metrics
from llm_assets.serving.patience import HungUpError, Patience, TimedOutError
from llm_assets.serving.reconciler import Deployment
from llm_assets.serving.rollout import Apart
from llm_assets.serving.router import Router, Told
from llm_assets.serving.sparing import Sparing

logger = logging.getLogger(__name__)

T = TypeVar("T")
Request = ChatRequest | CompletionRequest
Gone = Callable[[], Awaitable[bool]]

EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}, "required": ["data"]}
SECONDS = 600.0  # that an answer may take, or the first piece of one that is streamed
LINGER = 1.0  # seconds that a stream may take to break off
WAITING = 64  # requests that may wait for a slot
SHARE = 0.1  # of the time in which both releases of a rollout may read an answer


def streamed(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of a route's errors, and of an answer that comes as server-sent events."""
    described = "The answer; with `stream` a chunk an event, then `[DONE]`"
    return {**documented(400, *statuses), 200: {"description": described, "content": {"text/event-stream": {"schema": EVENT}}}}


class Begun:
    """An answer whose first events have come."""

    def __init__(self, answer: Answer[Any], events: AsyncGenerator[Events], first: Events | None) -> None:
        self.answer, self.events, self.first = answer, events, first
        self.reader: tuple[Deployment, Callable[[Apart], None]] | None = None  # the other release of a rollout, where it is to read the answer

    async def all(self) -> AsyncGenerator[Events]:
        """Every event; the slot is free when this is closed."""
        async with aclosing(self.events):
            if self.first:
                yield self.first
            async for events in self.events:
                yield events
        self.answer.check_whole()


class EventStream(StreamingResponse):
    """Server-sent events whose source is closed when the client goes, at once and not when it is collected."""

    def __init__(self, source: AsyncGenerator[bytes]) -> None:
        super().__init__(source, media_type="text/event-stream")
        self._source = source

    async def stream_response(self, send: Send) -> None:
        """Send all that comes."""
        async with aclosing(self._source):
            await super().stream_response(send)


class Completions:
    """Answers requests for text with the release that the router chooses."""

    def __init__(self, desk: Desk, router: Router, metrics: Metrics) -> None:
        self._desk, self._router, self._metrics = desk, router, metrics
        self._patience = Patience(SECONDS)
        self._beside: asyncio.Task[None] | None = None  # a shadow's answer
        self._streams = 0  # that are open
        self._reading = Sparing()  # of an answer by both releases of a rollout

    async def watch(self) -> None:
        """End what waits too long or for nobody, until cancelled."""
        await self._patience.watch()

    async def close(self) -> None:
        """Break off what nobody waits for, and let the streams that broke off be recorded."""
        self._reading.cancel()
        if self._beside:
            self._beside.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while self._streams:
                    await asyncio.sleep(LINGER / 100)

    async def answer(self, request: Request, client: Key, is_gone: Gone, session: str | None) -> Response:
        """The response to a request. Raises ``ApiError``; once a stream has begun, an error is its last event."""
        began, chain, release, status, tokens = time.perf_counter(), "", "", 500, 0
        try:
            stable = self._desk.deployment(request.model)
            chain, release = request.chain, stable.desired.release
            begun = await self._begun(request, stable, is_gone, session or new_id())
            release = begun.answer.release
            if request.stream:
                return EventStream(self._streamed(begun, client, began))
            try:
                await self._patiently(_taken(begun), is_gone)
                self._desk.keep(begun.answer.line(client.name, began))
                self._have_read(begun)
            except BaseException:
                self._note_broken(begun.answer, client, began)
                raise
            status, tokens = 200, begun.answer.usage()["total_tokens"]
            return JSONResponse(begun.answer.whole())
        except (ApiError, LlamaError, RefusedError) as error:
            said = _api_error(error)
            status = said.status
            raise said from error
        finally:
            if status != 500 or not request.stream:
                self._metrics.answered(chain, release, status, time.perf_counter() - began, tokens)

    async def _begun(self, request: Request, stable: Deployment, is_gone: Gone, session: str) -> Begun:
        """The answer of the release that the session sees, or of the stable one where the newer one fails or lacks the adapter."""
        deployment, told = self._router.choose(stable, session)
        if request.model not in models_of(request.chain, deployment.engine):
            return await self._first(request, stable, is_gone)
        if (shadow := self._router.shadow(stable)) and (self._beside is None or self._beside.done()):
            self._beside = asyncio.create_task(self._begin_unheard(request, *shadow))
        began = time.perf_counter()
        try:
            found = await self._first(request, deployment, is_gone)
        except LlamaError as error:
            told(True, _milliseconds(began))
            if deployment is stable:
                raise
            logger.warning("%s failed on a request, which %s answers: %s", deployment.desired.release, stable.desired.release, error)
            return await self._first(request, stable, is_gone)
        except ApiError as error:
            if error.status == HTTPStatus.GATEWAY_TIMEOUT:
                told(True, _milliseconds(began))
            raise
        told(False, _milliseconds(began) - found.answer.waited)
        found.reader = self._router.reader(stable, deployment)
        return found

    async def _begin_unheard(self, request: Request, deployment: Deployment, told: Told) -> None:
        """Have a release begin an answer that nobody hears, one at a time, and say how that went."""
        began, failed, waited = time.perf_counter(), False, 0.0
        if request.model not in models_of(request.chain, deployment.engine):
            return
        try:
            begun = await self._first(request, deployment, _never)
            waited = begun.answer.waited
            await begun.events.aclose()
        except ApiError as error:
            failed = error.status == HTTPStatus.GATEWAY_TIMEOUT
        except (LlamaError, RefusedError) as error:
            failed = True
            logger.warning("%s failed on a request that nobody heard: %s", deployment.desired.release, error)
        told(failed, _milliseconds(began) - waited)

    def _have_read(self, begun: Begun) -> None:
        """Have both releases of a rollout read an answer, which nobody waits for."""
        if (reader := begun.reader) and begun.answer.request.is_free:
            self._reading.attempt(lambda: self._read(begun.answer, *reader), SHARE)

    async def _read(self, answer: Answer[Any], reader: Deployment, told: Callable[[Apart], None]) -> None:
        try:
            found = await apart(answer, generator_of(reader, answer.request.model))
            if found is not None:
                told(found)
        except (ApiError, LlamaError, RefusedError) as error:
            logger.warning("%s could not read an answer of %s: %s", reader.desired.release, answer.release, error)

    async def _first(self, request: Request, deployment: Deployment, is_gone: Gone) -> Begun:
        engine = generator_of(deployment, request.chain)
        if engine.busy >= engine.slots + WAITING:
            said = f"{engine.busy} requests wait or are answered, which is as many as are taken: come again in a second"
            raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, said, headers={"Retry-After": "1"})
        release = deployment.desired.release
        answer: Answer[Any] = ChatAnswer(request, release, engine) if isinstance(request, ChatRequest) else CompletionAnswer(request, release, engine)
        events = answer.events()
        try:
            return Begun(answer, events, await self._patiently(_next(events), is_gone))
        except BaseException:
            await events.aclose()
            raise

    async def _streamed(self, begun: Begun, client: Key, began: float) -> AsyncGenerator[bytes]:
        """Every chunk as an event. The log has the answer before the last one; one that breaks off is there too."""
        answer, kept, status = begun.answer, False, 500
        self._streams += 1
        try:
            for chunk in answer.opening():
                yield _event(chunk)
            async with aclosing(begun.all()) as source:
                async for events in source:
                    yield _event(answer.chunk(events))
            self._desk.keep(answer.line(client.name, began))
            kept, status = True, 200
            self._have_read(begun)
            for chunk in answer.closing():
                yield _event(chunk)
            yield b"data: [DONE]\n\n"
        except (ApiError, LlamaError, RefusedError) as error:
            said = _api_error(error)
            status = said.status
            yield b"data: " + bytes(error_response(said.status, said.message, said.param).body) + b"\n\n"
        except (GeneratorExit, asyncio.CancelledError):
            status = 499  # as nginx names it: the client has gone
            raise
        finally:
            self._streams -= 1
            if not kept:
                self._note_broken(answer, client, began)
            self._metrics.answered(answer.request.chain, answer.release, status, time.perf_counter() - began, answer.usage()["total_tokens"])

    def _note_broken(self, answer: Answer[Any], client: Key, began: float) -> None:
        """Record what a client got of an answer that broke off."""
        if answer.text:
            with suppress(ApiError):  # the log says why
                self._desk.keep(answer.line(client.name, began))

    async def _patiently(self, work: Coroutine[Any, Any, T], is_gone: Gone) -> T:
        """What ``work`` returns. Raises what it raises, and ``ApiError`` when it takes too long or its client has gone."""
        found = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(work)
        task.add_done_callback(lambda ended: _hand_over(ended, found))
        try:
            return await self._patience.wait(found, is_gone)
        except TimedOutError as error:
            raise ApiError(HTTPStatus.GATEWAY_TIMEOUT, f"{error}: ask for fewer tokens, or come again later") from error
        except HungUpError as error:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error  # nobody reads it
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _never() -> bool:
    return False


async def _next(events: AsyncGenerator[Events]) -> Events | None:
    return await anext(events, None)


async def _taken(begun: Begun) -> None:
    async with aclosing(begun.all()) as source:
        async for events in source:
            begun.answer.take(events)


def _hand_over(ended: asyncio.Task[T], found: asyncio.Future[T]) -> None:
    if found.done():
        if not ended.cancelled():
            ended.exception()  # seen
    elif ended.cancelled():
        found.cancel()
    elif error := ended.exception():
        found.set_exception(error)
    else:
        found.set_result(ended.result())


def _api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RefusedError):
        return ApiError(HTTPStatus.BAD_REQUEST, f"the model's engine refuses this request: {error}")
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}: come again in a few seconds", headers={"Retry-After": "2"})


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _milliseconds(began: float) -> float:
    return (time.perf_counter() - began) * 1000
