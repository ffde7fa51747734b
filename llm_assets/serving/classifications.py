"""Classifications: answered in batches by the release that the router chooses, recorded before they leave, and explained when asked."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any
from weakref import WeakKeyDictionary

from llm_assets.serving import telemetry
from llm_assets.serving.answers import new_id
from llm_assets.serving.batching import Batcher, QueueFullError
from llm_assets.serving.cores import Cores
from llm_assets.serving.desk import Desk
from llm_assets.serving.engine import Classified, decided
from llm_assets.serving.engines import classifier_of
from llm_assets.serving.errors import ApiError
from llm_assets.serving.explanation import erasures, pieces, weighed
from llm_assets.serving.keys import Key
from llm_assets.serving.metrics import Metrics
from llm_assets.serving.patience import HungUpError, Patience, TimedOutError
from llm_assets.serving.peak import PeakWatch
from llm_assets.serving.reconciler import Deployment
from llm_assets.serving.router import Router
from llm_assets.serving.wire import ClassifyRequest, ExplainRequest

Gone = Callable[[], Awaitable[bool]]


class Classifications:
    """Answers requests for labels, with a batcher for each deployment."""

    def __init__(self, desk: Desk, router: Router, metrics: Metrics) -> None:
        self._desk, self._router, self._metrics = desk, router, metrics
        self._patience = Patience()
        self._cores = Cores()
        self._peak = PeakWatch(self._cores)
        # A batcher holds its engine, so it is kept by the deployment, which it does not hold: all three end together.
        self._batchers: WeakKeyDictionary[Deployment, Batcher] = WeakKeyDictionary()
        self._trials: WeakKeyDictionary[Deployment, Batcher] = WeakKeyDictionary()  # of releases on trial
        self._metrics.queue.set_function(lambda: sum(batcher.waiting for batcher in [*self._batchers.values(), *self._trials.values()]))

    async def watch(self) -> None:
        """End what waits too long or for nobody, and tell when the peak is near, until cancelled."""
        await asyncio.gather(self._patience.watch(), self._peak.watch())

    def close(self) -> None:
        """End the threads of the engines."""
        self._cores.close()

    async def answer(self, request: ClassifyRequest, client: Key, is_gone: Gone, session: str | None = None) -> dict[str, Any]:
        """vLLM's classify response plus ``release``; recorded before it is returned. A session sees one release of a canary."""
        began, status, tokens, chain, release = time.perf_counter(), 500, 0, "", ""
        try:
            texts = request.texts()
            stable = self._desk.deployment(request.model)
            classifier_of(stable, request.model)
            chain, release = request.model, stable.desired.release
            identity = new_id()
            deployment, answers = await self._router.answer(stable, identity, session, texts, lambda chosen: self._answered(chosen, texts, is_gone))
            release = deployment.desired.release
            response = _response(identity, request.model, deployment, answers)
            self._desk.keep(_line(response, client, texts, began))
            status, tokens = 200, response["usage"]["total_tokens"]
        except ApiError as error:
            status = error.status
            raise
        finally:
            self._metrics.answered(chain, release, status, time.perf_counter() - began, tokens)
            telemetry.note(**{"llm_assets.chain": chain, "llm_assets.release": release, "llm_assets.tokens": tokens})
        return response

    async def explain(self, request: ExplainRequest, is_gone: Gone) -> dict[str, Any]:
        """Which words carried the answer to each text; a question about an answer, so neither logged nor counted as one."""
        cut = [pieces(text) for text in request.texts()]
        deployment = self._desk.loaded(request.model, request.release)
        engine = classifier_of(deployment, request.model)
        asked = [("".join(text for text, _ in parts), *erasures(parts)) for parts in cut]
        answers = iter(await self._answered(deployment, [variant for variants in asked for variant in variants], is_gone))
        found = [[next(answers) for _ in variants] for variants in asked]
        data = [
            {"index": index, **weighed(cut[index], whole, without, engine.labels, engine.problem)} for index, (whole, *without) in enumerate(found)
        ]
        return {"model": request.model, "release": deployment.desired.release, "data": data}

    async def _answered(self, deployment: Deployment, texts: Sequence[str], is_gone: Gone) -> list[Classified]:
        try:
            return await self._patience.wait(self._batcher(deployment).submit(texts), is_gone)
        except QueueFullError as error:
            raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, str(error), headers={"Retry-After": str(error.seconds)}) from error
        except TimedOutError as error:
            raise ApiError(HTTPStatus.GATEWAY_TIMEOUT, f"{error}: send fewer texts, or come again later") from error
        except HungUpError as error:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error  # nobody reads it

    def _batcher(self, deployment: Deployment) -> Batcher:
        """A release on trial has as many batches at a time as its share of the requests asks for: fewer are larger ones, and it may hang."""
        share = self._desk.share_on_trial(deployment)
        batchers = self._batchers if share is None else self._trials
        if deployment not in batchers:
            engine = classifier_of(deployment, deployment.desired.chain)
            batchers[deployment] = Batcher(engine, self._cores, watch=self._metrics.batched)
        if share is not None:
            batchers[deployment].turns = max(1, math.ceil(self._cores.count * share / 100))
        return batchers[deployment]


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


def _line(response: dict[str, Any], client: Key, texts: Sequence[str], began: float) -> dict[str, Any]:
    """What the request log says of an answer."""
    return {
        "id": response["id"],
        "chain": response["model"],
        "release": response["release"],
        "client": client.name,
        "texts": texts,
        "labels": [entry["label"] for entry in response["data"]],
        "probs": [entry["probs"] for entry in response["data"]],
        "milliseconds": round((time.perf_counter() - began) * 1000, 3),
    }
