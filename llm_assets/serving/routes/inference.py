"""Asking the models: labels and why, conversations and completions, and which models there are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse, Response

from llm_assets.serving.access import client_of
from llm_assets.serving.completion_wire import ChatCompletion, ChatRequest, CompletionRequest, TextCompletion
from llm_assets.serving.completions import streamed
from llm_assets.serving.errors import documented
from llm_assets.serving.gateway import Gateway
from llm_assets.serving.shortcut import PATH
from llm_assets.serving.wire import SESSION_LENGTH, ClassifyAnswer, ClassifyRequest, ExplainAnswer, ExplainRequest, Models

Session = Annotated[
    str | None, Header(max_length=SESSION_LENGTH, description="whose requests one release answers while two serve; default: each on its own")
]


async def classified(gateway: Gateway, request: ClassifyRequest, http: Request, session: str | None) -> dict[str, Any]:
    """The answer of ``/v1/classify``, which the shortcut gives too."""
    return await gateway.classifications.answer(request, client_of(http.scope), http.is_disconnected, session)


def install(app: FastAPI, gateway: Gateway) -> None:
    """Serve what a gateway's models are asked."""

    @app.post(PATH, response_model=ClassifyAnswer, responses=documented(400, 404, 504))
    async def classify(request: ClassifyRequest, http: Request, x_session_id: Session = None) -> JSONResponse:
        """The label of each input and its probabilities, in the order of the model's labels.

        Of a model whose texts have several labels those with one half or more, with a bar between; of a regression the number.
        """
        return JSONResponse(await classified(gateway, request, http, x_session_id))

    @app.post("/v1/explain", response_model=ExplainAnswer, responses=documented(400, 404, 504))
    async def explain(request: ExplainRequest, http: Request) -> JSONResponse:
        """Which words carried the answers: for each word, what the answer's probability loses when it is left out."""
        return JSONResponse(await gateway.classifications.explain(request, http.is_disconnected))

    @app.post("/v1/chat/completions", response_model=ChatCompletion, responses=streamed(404, 504))
    async def chat(request: ChatRequest, http: Request, x_session_id: Session = None) -> Response:
        """The assistant's next turn, whole or as server-sent events; log-probabilities, grammars, JSON schemas."""
        return await gateway.completions.answer(request, client_of(http.scope), http.is_disconnected, x_session_id)

    @app.post("/v1/completions", response_model=TextCompletion, responses=streamed(404, 504))
    async def complete(request: CompletionRequest, http: Request, x_session_id: Session = None) -> Response:
        """How a text goes on, whole or as server-sent events; with `echo` or `prompt_logprobs` how likely the text itself is."""
        return await gateway.completions.answer(request, client_of(http.scope), http.is_disconnected, x_session_id)

    @app.get("/v1/models", response_model=Models, responses=documented())
    async def models() -> JSONResponse:
        """The models served now."""
        return JSONResponse(gateway.desk.models())
