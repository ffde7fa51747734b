"""The routes of the labelling page: the next text of a chain's queue, and what an annotator says of it. For operators alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse

from llm_assets.serving.access import client_of
from llm_assets.serving.agreement import agreements
from llm_assets.serving.errors import ApiError, documented
from llm_assets.serving.labelling import Queue, Task, misfit, next_task, queued_chains, read_labels, read_queue, write_label
from llm_assets.serving.wire import AnnotationChains, AnnotationQueue, Annotator, LabelRequest

COMMON = 2  # texts that two annotators have in common, below which a kappa says nothing at all

Chain = Annotated[str, PathParameter(pattern=r"^[a-z][a-z0-9_]*$")]
Name = Annotated[Annotator, Query()]


def install(app: FastAPI, home: Path) -> None:
    """Serve the queues of a data root."""

    @app.get("/v1/annotations", response_model=AnnotationChains, responses=documented())
    def chains() -> JSONResponse:
        """The chains that have a queue: `llm-assets annotate queue CHAIN` fills one."""
        return JSONResponse({"chains": queued_chains(home)})

    @app.get("/v1/annotations/{chain}", response_model=AnnotationQueue, responses=documented(400, 404))
    def queue(chain: Chain, annotator: Name) -> JSONResponse:
        """The next text for an annotator, and how far all of them have come."""
        return JSONResponse(_seen_by(home, chain, _queue(home, chain), annotator))

    @app.post("/v1/annotations/{chain}", response_model=AnnotationQueue, responses=documented(400, 404))
    def label(chain: Chain, request: LabelRequest, http: Request) -> JSONResponse:
        """Label a text, or skip it; stored when this answers, which it does with the next text."""
        found = _queue(home, chain)
        task = next((task for task in found.tasks if (task.id, task.index) == (request.id, request.index)), None)
        if task is None:
            raise ApiError(HTTPStatus.NOT_FOUND, f"the queue of {chain} holds no text {request.index} of {request.id}", "id")
        if request.label is not None and (expected := _misfit(found, request.label)):
            raise ApiError(HTTPStatus.BAD_REQUEST, f"label is not {expected}", "label")
        write_label(home, chain, task, request.annotator, client_of(http.scope).name, request.label)
        return JSONResponse(_seen_by(home, chain, found, request.annotator))


def _queue(home: Path, chain: str) -> Queue:
    found = read_queue(home, chain)
    if found is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"{chain} has no queue: fill it with `llm-assets annotate queue {chain}`", "chain")
    return found


def _misfit(queue: Queue, label: str) -> str | None:
    return None if queue.problem == "multi_label" and label == "" else misfit(queue.problem, label, queue.labels)  # of several none may apply


def _seen_by(home: Path, chain: str, queue: Queue, annotator: str) -> dict[str, Any]:
    said = read_labels(home, chain)
    open_now = [said[task.id, task.index] for task in queue.tasks if (task.id, task.index) in said]
    task = next_task(queue, said, annotator)
    return {
        "chain": chain,
        "labels": list(queue.labels),
        "problem": queue.problem,
        "tasks": [_task(task)] if task else [],
        "left": len(queue.tasks) - sum(annotator in each.labels for each in open_now),
        "annotators": Counter(name for each in open_now for name in each.ballot),
        "agreements": [asdict(agreement) for agreement in agreements([each.ballot for each in open_now], COMMON)],
    }


def _task(task: Task) -> dict[str, Any]:
    return {"id": task.id, "index": task.index, "text": task.text, "answered": task.answered, "reason": task.reason}
