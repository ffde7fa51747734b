"""The gateway: answers classification requests over HTTP with the releases that are desired of it."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import uvicorn
from fastapi import FastAPI, Header
from fastapi.responses import HTMLResponse, JSONResponse
from filelock import Timeout
from pydantic import AfterValidator, BaseModel, Field

from llm_assets.serving import errors, pages
from llm_assets.serving.batching import Batcher
from llm_assets.serving.engine import Classified, decided
from llm_assets.serving.errors import ApiError
from llm_assets.serving.ports import bind
from llm_assets.serving.reconciler import Deployment, Reconciler
from llm_assets.serving.request_log import RequestLog, RequestLogError
from llm_assets.serving.router import Router
from llm_assets.serving.state import gateway_lock, gateway_state, gateway_state_path
from llm_assets.store.files import write_json
from llm_assets.store.journal import now

logger = logging.getLogger(__name__)

POLL = 0.1  # seconds between two looks at the desired folder: a rollback by hand takes effect within a second
BODY_LIMIT = 1 << 20  # bytes
INPUT_LIMIT = 256  # texts a request
DRAIN = 5  # seconds that requests in flight have after SIGTERM


def _is_unicode(text: str) -> str:
    """JSON can spell half of a character (``\\ud800``), which no encoder takes. Raises ``ValueError`` for one."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it holds a lone surrogate, which is no character") from error
    return text


Text = Annotated[str, AfterValidator(_is_unicode)]
Session = Annotated[str | None, Header(max_length=256, description="whose requests one release answers while two serve; default: each on its own")]


class ClassifyRequest(BaseModel):
    """vLLM's classify request; fields of its that are not used here are passed over."""

    model: Text = Field(description="the chain that classifies")
    input: Annotated[Text | list[Text], Field(description=f"one text, or up to {INPUT_LIMIT}")]

    def texts(self) -> list[str]:
        """The inputs as a list. Raises ``ApiError`` for none, too many or an empty one."""
        texts = [self.input] if isinstance(self.input, str) else self.input
        if len(texts) > INPUT_LIMIT:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"input holds {len(texts)} texts, the limit is {INPUT_LIMIT}: send several requests", "input")
        if not texts:
            raise ApiError(HTTPStatus.BAD_REQUEST, "input is an empty list: send at least one text", "input")
        if empty := [index for index, text in enumerate(texts) if not text.strip()]:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"input holds an empty text at index {empty[0]}: leave it out", "input")
        return texts


class Gateway:
    """What the routes share: the reconciler, a batcher for each deployment, the request log, the state file."""

    def __init__(self, home: Path, address: dict[str, Any] | None = None) -> None:
        self.reconciler = Reconciler(home)
        self._router = Router(home, self.reconciler)
        self._home = home
        self._address = address
        self._log = RequestLog(home / "serving" / "log")
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="engine")  # one batch at a time leaves the other cores their work
        # A batcher holds its engine, so it is kept by the deployment, which it does not hold: all three end together.
        self._batchers: WeakKeyDictionary[Deployment, Batcher] = WeakKeyDictionary()
        self._written: dict[str, Any] | None = None

    async def run(self) -> None:
        """Reconcile until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self._reconcile)
            except OSError:
                logger.exception("the desired releases could not be compared; trying again")
            await asyncio.sleep(POLL)

    def close(self) -> None:
        """Close the log and take back the state file."""
        self._log.close()
        self._router.close()
        self._executor.shutdown()
        if self._address:
            gateway_state_path(self._home).unlink(missing_ok=True)

    async def classify(self, request: ClassifyRequest, session: str | None = None) -> dict[str, Any]:
        """vLLM's classify response plus ``release``; recorded before it is returned. A session sees one release of a canary."""
        began, texts = time.perf_counter(), request.texts()
        stable = self._deployment(request.model)
        session = session or uuid.uuid4().hex
        deployment, answers = await self._router.answer(stable, session, texts, lambda chosen: self._batcher(chosen).submit(texts))
        response = _response(request.model, deployment, answers)
        try:
            self._log.write(
                request.model,
                response["id"],
                response["release"],
                texts,
                labels=[entry["label"] for entry in response["data"]],
                probs=[entry["probs"] for entry in response["data"]],
                milliseconds=round((time.perf_counter() - began) * 1000, 3),
            )
        except RequestLogError as error:
            logger.error("%s", error)
            message = "the request could not be recorded, so it is not answered; the gateway's log says why"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message) from error
        return response

    def models(self) -> dict[str, Any]:
        """OpenAI's list of models, with each one's release and labels."""
        return {
            "object": "list",
            "data": [
                {"id": chain, "object": "model", "owned_by": "llm_assets", "release": live.desired.release, "labels": live.engine.labels}
                for chain, live in sorted(self.reconciler.live.items())
            ],
        }

    def _deployment(self, chain: str) -> Deployment:
        if deployment := self.reconciler.live.get(chain):
            return deployment
        status = self.reconciler.status()
        if chain in status:
            reason = status[chain]["error"] or "its release is being loaded"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, f"model {chain} is not served yet: {reason}", "model")
        known = ", ".join(status) or "none; materialize a chain's endpoint"
        raise ApiError(HTTPStatus.NOT_FOUND, f"no model {chain}; the models here: {known}", "model")

    def _batcher(self, deployment: Deployment) -> Batcher:
        if deployment not in self._batchers:
            self._batchers[deployment] = Batcher(deployment.engine.answer, self._executor)
        return self._batchers[deployment]

    def _reconcile(self) -> None:
        self.reconciler.step()
        self._router.step()
        state = {**(self._address or {}), "chains": self.reconciler.status()}
        if self._address and state != self._written:
            write_json(gateway_state_path(self._home), state)
            self._written = state


def _response(model: str, deployment: Deployment, answers: Sequence[Classified]) -> dict[str, Any]:
    labels = deployment.engine.labels
    tokens = sum(answer.tokens for answer in answers)
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [
            {
                "index": index,
                "label": decided(deployment.engine.problem, answer.probabilities, labels),
                "probs": answer.probabilities,
                "num_classes": len(labels),
            }
            for index, answer in enumerate(answers)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None},
        "release": deployment.desired.release,
    }


def create_app(home: Path, address: dict[str, Any] | None = None) -> FastAPI:
    """The application over a data root; with ``address`` (pid, node, host, port, url, started) it also keeps the state file."""
    gateway = Gateway(home, address)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        reconciling = asyncio.create_task(gateway.run())
        yield
        reconciling.cancel()
        await asyncio.gather(reconciling, return_exceptions=True)
        gateway.close()

    app = FastAPI(title="llm_assets gateway", lifespan=lifespan, docs_url=None, redoc_url=None)  # those pages load scripts from a CDN
    app.add_middleware(errors.BodyLimit, limit=BODY_LIMIT)
    errors.install(app)
    pages.install(app, home)
    page = (files(__package__) / "page.html").read_text(encoding="utf-8")

    @app.post("/v1/classify")
    async def classify(request: ClassifyRequest, x_session_id: Session = None) -> JSONResponse:
        """The label of each input and its probabilities, in the order of the model's labels.

        Of a model whose texts have several labels those with one half or more, with a bar between; of a regression the number.
        """
        return JSONResponse(await gateway.classify(request, x_session_id))

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        """The models served now."""
        return JSONResponse(gateway.models())

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Whether the process is alive."""
        return JSONResponse({"alive": True})

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """503 until every desired chain is served; a refused new release shows as ``error`` beside the live one."""
        status = HTTPStatus.OK if gateway.reconciler.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return JSONResponse({"ready": gateway.reconciler.ready, "chains": gateway.reconciler.status()}, status)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

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
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN)
        print(f"gateway: {url}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])
