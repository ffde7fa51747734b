"""The gateway: answers requests over HTTP with the releases that are desired of it, and keeps what is said of its answers."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import uvicorn
from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from filelock import Timeout

from llm_assets.serving import annotate, errors, page, pages, status, telemetry
from llm_assets.serving.access import Access, client_of
from llm_assets.serving.answers import Answers, new_id
from llm_assets.serving.batching import Batcher, QueueFullError
from llm_assets.serving.completion_wire import ChatCompletion, ChatRequest, CompletionRequest, TextCompletion
from llm_assets.serving.completions import Completions, streamed
from llm_assets.serving.engine import Classified, decided
from llm_assets.serving.engines import classifier_of
from llm_assets.serving.errors import ApiError, ErrorBody, documented
from llm_assets.serving.explanation import erasures, pieces, weighed
from llm_assets.serving.feedback import Feedback, Vote
from llm_assets.serving.generation import Generator
from llm_assets.serving.keys import Key
from llm_assets.serving.labelling import misfit
from llm_assets.serving.metrics import Metrics
from llm_assets.serving.patience import HungUpError, Patience, TimedOutError
from llm_assets.serving.ports import bind
from llm_assets.serving.pulse import Pulse
from llm_assets.serving.reconciler import Deployment, Reconciler
from llm_assets.serving.request_log import RequestLog, RequestLogError, log_folder
from llm_assets.serving.router import Router
from llm_assets.serving.shortcut import PATH, Shortcut
from llm_assets.serving.state import gateway_lock, gateway_state, gateway_state_path
from llm_assets.serving.wire import (
    SESSION_LENGTH,
    Alive,
    ClassifyAnswer,
    ClassifyRequest,
    ExplainAnswer,
    ExplainRequest,
    FeedbackAnswer,
    FeedbackRequest,
    Models,
    Readiness,
)
from llm_assets.store.files import write_json
from llm_assets.store.journal import now

logger = logging.getLogger(__name__)

POLL = 0.1  # seconds between two looks at the desired folder: a rollback by hand takes effect within a second
BODY_LIMIT = 1 << 20  # bytes
BODIES_LIMIT = 64 << 20  # bytes of all bodies that are being read
SWITCH = 0.0005  # seconds for which the event loop may keep the interpreter's lock from an engine that has an answer (Python's default: 0.005)
DRAIN = 5  # seconds that requests in flight have after SIGTERM

Session = Annotated[
    str | None, Header(max_length=SESSION_LENGTH, description="whose requests one release answers while two serve; default: each on its own")
]


class Gateway:
    """What the routes share: the reconciler, a batcher for each deployment, the request log, the feedback, the state file."""

    def __init__(self, home: Path, address: dict[str, Any] | None = None) -> None:
        self.reconciler = Reconciler(home)
        self._router = Router(home, self.reconciler)
        self.metrics = Metrics()
        self.pulse = Pulse(self.metrics)
        self._home = home
        self._address = address
        self._log = RequestLog(log_folder(home), self.metrics.log_group.observe)
        self._answers = Answers(home)
        self._feedback = Feedback(home)
        self._patience = Patience()
        self.completions = Completions(self, self._router, self.metrics)
        # As many batches at a time as there are cores: while one waits for the interpreter's lock another one computes, without it.
        self._turns = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._executor = ThreadPoolExecutor(self._turns, thread_name_prefix="engine")
        # A batcher holds its engine, so it is kept by the deployment, which it does not hold: all three end together.
        self._batchers: WeakKeyDictionary[Deployment, Batcher] = WeakKeyDictionary()
        self._trials: WeakKeyDictionary[Deployment, Batcher] = WeakKeyDictionary()  # of releases on trial
        self._written: dict[str, Any] | None = None
        self.metrics.queue.set_function(lambda: sum(batcher.waiting for batcher in [*self._batchers.values(), *self._trials.values()]))

    async def run(self) -> None:
        """Reconcile, and end what waits too long, until cancelled."""
        if self._address:
            await self._log.start()
        await asyncio.gather(asyncio.to_thread(self._answers.load), self._patience.watch(), self.completions.watch(), self._follow())

    async def close(self) -> None:
        """Close the log and the feedback, end the engines, and take back the state file."""
        await self.completions.close()
        await self._log.close()
        self._router.close()
        await self._feedback.close()
        self._executor.shutdown()
        await asyncio.to_thread(self.reconciler.close)
        if self._address:
            gateway_state_path(self._home).unlink(missing_ok=True)

    async def classify(
        self, request: ClassifyRequest, client: Key, is_gone: Callable[[], Awaitable[bool]], session: str | None = None
    ) -> dict[str, Any]:
        """vLLM's classify response plus ``release``; recorded before it is returned. A session sees one release of a canary."""
        began, status, tokens, chain, release = time.perf_counter(), 500, 0, "", ""
        try:
            texts = request.texts()
            stable = self.deployment(request.model)
            classifier_of(stable, request.model)
            chain, release = request.model, stable.desired.release
            identity = new_id()
            deployment, answers = await self._router.answer(stable, identity, session, texts, lambda chosen: self._answered(chosen, texts, is_gone))
            release = deployment.desired.release
            response = _response(identity, request.model, deployment, answers)
            await self._record(response, client, texts, began)
            status, tokens = 200, response["usage"]["total_tokens"]
        except ApiError as error:
            status = error.status
            raise
        finally:
            self.metrics.answered(chain, release, status, time.perf_counter() - began, tokens)
            telemetry.note(**{"llm_assets.chain": chain, "llm_assets.release": release, "llm_assets.tokens": tokens})
        return response

    async def explain(self, request: ExplainRequest, is_gone: Callable[[], Awaitable[bool]]) -> dict[str, Any]:
        """Which words carried the answer to each text; a question about an answer, so neither logged nor counted as one."""
        cut = [pieces(text) for text in request.texts()]
        deployment = self._loaded(request.model, request.release)
        engine = classifier_of(deployment, request.model)
        asked = [("".join(text for text, _ in parts), *erasures(parts)) for parts in cut]
        answers = iter(await self._answered(deployment, [variant for variants in asked for variant in variants], is_gone))
        found = [[next(answers) for _ in variants] for variants in asked]
        data = [
            {"index": index, **weighed(cut[index], whole, without, engine.labels, engine.problem)} for index, (whole, *without) in enumerate(found)
        ]
        return {"model": request.model, "release": deployment.desired.release, "data": data}

    async def vote(self, request: FeedbackRequest, client: Key) -> dict[str, Any]:
        """Store what a client says of an answer; it is on the disk when this returns."""
        known = self._answers.recall(request.id) or await asyncio.to_thread(self._answers.find, request.id)
        if known is None:
            raise ApiError(HTTPStatus.NOT_FOUND, f"no answer {request.id}: send the id that /v1/classify gave", "id")
        if request.index >= known.texts:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"{request.id} answers {known.texts} texts: index is below that", "index")
        comment = (request.comment or "").strip() or None
        if request.rating is None and request.label is None and comment is None:
            raise ApiError(HTTPStatus.BAD_REQUEST, "nothing is said: send a rating, a label or a comment", "rating")
        if request.label is not None:
            engine = self.deployment(known.chain).engine  # what a generator should have said is the better answer, in the client's words
            expected = None if isinstance(engine, Generator) else misfit(engine.problem, request.label, engine.labels)
            if expected:
                raise ApiError(HTTPStatus.BAD_REQUEST, f"label is not {expected}", "label")
        vote = Vote(known.chain, request.id, request.index, client.name, request.rating, request.label, comment)
        fresh = await self._feedback.store(vote, client.votes_per_day)
        if fresh:
            self.metrics.votes.labels(known.chain, request.rating or "none").inc()
        return {"id": request.id, "index": request.index, "already": not fresh}

    def models(self) -> dict[str, Any]:
        """OpenAI's list of models, with each one's release and labels."""
        return {
            "object": "list",
            "data": [
                {"id": chain, "object": "model", "owned_by": "llm_assets", **_described(live)} for chain, live in sorted(self.reconciler.live.items())
            ],
        }

    def deployment(self, chain: str) -> Deployment:
        """The stable release of a chain. Raises ``ApiError`` where none is served."""
        if deployment := self.reconciler.live.get(chain):
            return deployment
        status = self.reconciler.status()
        if chain in status:
            reason = status[chain]["error"] or "its release is being loaded"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, f"model {chain} is not served yet: {reason}", "model")
        known = ", ".join(status) or "none; materialize a chain's endpoint"
        raise ApiError(HTTPStatus.NOT_FOUND, f"no model {chain}; the models here: {known}", "model")

    def _loaded(self, chain: str, release: str | None) -> Deployment:
        """The deployment that serves a chain, or that of a release of it, which may be one on trial."""
        serving = self.deployment(chain)
        loaded = [serving, *([self.reconciler.candidates[chain]] if chain in self.reconciler.candidates else [])]
        for deployment in loaded:
            if release in (None, deployment.desired.release):
                return deployment
        names = ", ".join(deployment.desired.release for deployment in loaded)
        raise ApiError(HTTPStatus.NOT_FOUND, f"{chain} does not serve {release} now; it serves {names}", "release")

    async def _answered(self, deployment: Deployment, texts: Sequence[str], is_gone: Callable[[], Awaitable[bool]]) -> list[Classified]:
        try:
            return await self._patience.wait(self._batcher(deployment).submit(texts), is_gone)
        except QueueFullError as error:
            raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, str(error), headers={"Retry-After": str(error.seconds)}) from error
        except TimedOutError as error:
            raise ApiError(HTTPStatus.GATEWAY_TIMEOUT, f"{error}: send fewer texts, or come again later") from error
        except HungUpError as error:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error  # nobody reads it

    def _batcher(self, deployment: Deployment) -> Batcher:
        """A release on trial works in threads of its own: where it hangs, the stable one goes on in the others."""
        on_trial = self.reconciler.candidates.get(deployment.desired.chain) is deployment
        batchers = self._trials if on_trial else self._batchers
        if deployment not in batchers:
            engine = classifier_of(deployment, deployment.desired.chain)
            executor = ThreadPoolExecutor(self._turns, thread_name_prefix="trial") if on_trial else self._executor
            batchers[deployment] = Batcher(engine, executor, watch=self.metrics.batched, turns=self._turns)
        return batchers[deployment]

    async def _record(self, response: dict[str, Any], client: Key, texts: Sequence[str], began: float) -> None:
        """Put an answer into the log, and its id among those that can be voted on."""
        request = {
            "id": response["id"],
            "chain": response["model"],
            "release": response["release"],
            "client": client.name,
            "texts": texts,
            "labels": [entry["label"] for entry in response["data"]],
            "probs": [entry["probs"] for entry in response["data"]],
            "milliseconds": round((time.perf_counter() - began) * 1000, 3),
        }
        await self.keep(request)

    async def keep(self, line: dict[str, Any]) -> None:
        """Put a line of the request log on the disk. Raises ``ApiError`` where it cannot be, for the answer must not go out then."""
        try:
            await self._log.write(line)
        except RequestLogError as error:
            logger.error("%s", error)
            message = "the request could not be recorded, so it is not answered; the gateway's log says why"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message) from error
        self._answers.remember(line["id"], line["chain"], len(line["texts"]))

    async def _follow(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._reconcile)
            except OSError:
                logger.exception("the desired releases could not be compared; trying again")
            await asyncio.sleep(POLL)

    def _reconcile(self) -> None:
        self.reconciler.step()
        self._router.step()
        self.pulse.look()
        state = {**(self._address or {}), "chains": self.reconciler.status()}
        if self._address and state != self._written:
            write_json(gateway_state_path(self._home), state)
            self._written = state


def _response(identity: str, model: str, deployment: Deployment, answers: Sequence[Classified]) -> dict[str, Any]:
    engine = classifier_of(deployment, model)
    labels = engine.labels
    tokens = sum(answer.tokens for answer in answers)
    return {
        "id": identity,
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [
            {
                "index": index,
                "label": decided(engine.problem, answer.probabilities, labels),
                "probs": answer.probabilities,
                "num_classes": len(labels),
            }
            for index, answer in enumerate(answers)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None},
        "release": deployment.desired.release,
    }


def _described(live: Deployment) -> dict[str, Any]:
    created = int(datetime.fromisoformat(live.desired.at).timestamp())
    return {"created": created, "release": live.desired.release, **live.engine.described()}


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

    async def classified(request: ClassifyRequest, http: Request, session: str | None) -> dict[str, Any]:
        return await gateway.classify(request, client_of(http.scope), http.is_disconnected, session)

    app.add_middleware(Shortcut, answer=classified)
    app.add_middleware(errors.BodyLimit, limit=BODY_LIMIT, together=BODIES_LIMIT)
    app.add_middleware(Access, home=home)
    errors.install(app)
    end_telemetry = telemetry.install(app)  # the outermost of all, so that it sees what the others refuse

    @app.post(PATH, response_model=ClassifyAnswer, responses=documented(400, 404, 504))
    async def classify(request: ClassifyRequest, http: Request, x_session_id: Session = None) -> JSONResponse:
        """The label of each input and its probabilities, in the order of the model's labels.

        Of a model whose texts have several labels those with one half or more, with a bar between; of a regression the number.
        """
        return JSONResponse(await classified(request, http, x_session_id))

    @app.post("/v1/explain", response_model=ExplainAnswer, responses=documented(400, 404, 504))
    async def explain(request: ExplainRequest, http: Request) -> JSONResponse:
        """Which words carried the answers: for each word, what the answer's probability loses when it is left out."""
        return JSONResponse(await gateway.explain(request, http.is_disconnected))

    @app.post("/v1/chat/completions", response_model=ChatCompletion, responses=streamed(404, 504))
    async def chat(request: ChatRequest, http: Request, x_session_id: Session = None) -> Response:
        """The assistant's next turn, whole or as server-sent events; log-probabilities, grammars, JSON schemas."""
        return await gateway.completions.answer(request, client_of(http.scope), http.is_disconnected, x_session_id)

    @app.post("/v1/completions", response_model=TextCompletion, responses=streamed(404, 504))
    async def complete(request: CompletionRequest, http: Request, x_session_id: Session = None) -> Response:
        """How a text goes on, whole or as server-sent events; with `echo` or `prompt_logprobs` how likely the text itself is."""
        return await gateway.completions.answer(request, client_of(http.scope), http.is_disconnected, x_session_id)

    @app.post("/v1/feedback", response_model=FeedbackAnswer, responses=documented(400, 404))
    async def feedback(request: FeedbackRequest, http: Request) -> JSONResponse:
        """Say whether an answer was right, and what is; stored when this answers."""
        return JSONResponse(await gateway.vote(request, client_of(http.scope)))

    @app.get("/v1/models", response_model=Models, responses=documented())
    async def models() -> JSONResponse:
        """The models served now."""
        return JSONResponse(gateway.models())

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

    page.install(app)  # routes are tried in order: the busiest stands first
    pages.install(app, home)
    annotate.install(app, home)
    status.install(app, home, gateway.reconciler, gateway.pulse)
    return app


class GatewayRunningError(RuntimeError):
    """Another gateway serves this data root."""


def serve(host: str, port: int, home: Path) -> None:
    """Serve until SIGTERM or SIGINT; port 0 takes a free one, which the state file names.

    Raises ``PortError`` for a busy port and ``GatewayRunningError`` when the data root has a gateway already.
    """
    listener = bind(host, port, "gateway", "end that process or choose another with --port")
    try:
        lock = gateway_lock(home).acquire(timeout=2)  # an endpoint that asks whether a gateway lives holds it for an instant
    except Timeout as error:
        listener.close()
        state = gateway_state(home) or {}
        other = f"process {state.get('pid')} on {state.get('url')}"
        raise GatewayRunningError(f"{home} has a gateway already, {other}: end it, or use that one") from error
    with lock, listener:
        port = listener.getsockname()[1]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        address = {"pid": os.getpid(), "node": platform.node(), "host": host, "port": port, "url": url, "started": now()}
        write_json(gateway_state_path(home), {**address, "chains": {}})  # over what a gateway that was killed left
        app = create_app(home, address)
        sys.setswitchinterval(SWITCH)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # waking other threads takes longer than a text does
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN)
        print(f"gateway: {url}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])
