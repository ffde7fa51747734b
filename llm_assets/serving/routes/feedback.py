"""Saying whether an answer was right: a vote is checked against the answer that it is on, then stored."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from llm_assets.serving.access import client_of
from llm_assets.serving.answers import GENERATED
from llm_assets.serving.engines import classifier_of
from llm_assets.serving.errors import ApiError, documented
from llm_assets.serving.feedback import Vote
from llm_assets.serving.gateway import Gateway
from llm_assets.serving.keys import Key
from llm_assets.serving.labelling import misfit
from llm_assets.serving.wire import FeedbackAnswer, FeedbackRequest


def install(app: FastAPI, gateway: Gateway) -> None:
    """Take votes on a gateway's answers."""

    @app.post("/v1/feedback", response_model=FeedbackAnswer, responses=documented(400, 404))
    async def feedback(request: FeedbackRequest, http: Request) -> JSONResponse:
        """Say whether an answer was right, and what is; stored when this answers."""
        client = client_of(http.scope)
        vote = await _vote(gateway, request, client)
        fresh = await gateway.feedback.store(vote, client.votes_per_day)
        if fresh:
            gateway.metrics.votes.labels(vote.chain, vote.rating or "none").inc()
        return JSONResponse({"id": vote.id, "index": vote.index, "already": not fresh})


async def _vote(gateway: Gateway, request: FeedbackRequest, client: Key) -> Vote:
    """What a client says of an answer. Raises ``ApiError`` for one that there is not, and for a vote that says nothing or what cannot be."""
    known = gateway.answers.recall(request.id) or await asyncio.to_thread(gateway.answers.find, request.id)
    if known is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"no answer {request.id}: send the id that came with an answer", "id")
    if request.index >= known.texts:
        raise ApiError(HTTPStatus.BAD_REQUEST, f"{request.id} answers {known.texts} texts: index is below that", "index")
    comment = (request.comment or "").strip() or None
    if request.rating is None and request.label is None and comment is None:
        raise ApiError(HTTPStatus.BAD_REQUEST, "nothing is said: send a rating, a label or a comment", "rating")
    is_reply = request.id.startswith(GENERATED)
    if request.label is not None and (expected := _misfit(gateway, known.chain, request.label, is_reply)):
        raise ApiError(HTTPStatus.BAD_REQUEST, f"label is not {expected}", "label")
    return Vote(known.chain, request.id, request.index, client.name, request.rating, request.label, comment, is_reply)


def _misfit(gateway: Gateway, chain: str, label: str, is_reply: bool) -> str | None:
    """What a label should have been, None for one that may be right."""
    if is_reply:
        return None if label.strip() else "a reply: it is empty"
    engine = classifier_of(gateway.desk.deployment(chain), chain)
    return misfit(engine.problem, label, engine.labels)
