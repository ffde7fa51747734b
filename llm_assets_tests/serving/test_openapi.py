"""Every route does what the OpenAPI document says of it, whatever is sent; and the document names every answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from llm_assets.serving.keys import add_key
from llm_assets.serving.labelling import Queue, Task, enqueue
from llm_assets_tests.serving.conftest import eventually, local_client
from llm_assets_tests.serving.talking import deploy as deploy_decoder
from llm_assets_tests.serving.tiny import LABELS, deploy

OPERATIONS = (
    "POST /v1/classify",
    "POST /v1/explain",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/feedback",
    "GET /v1/models",
    "GET /v1/annotations",
    "GET /v1/annotations/{chain}",
    "POST /v1/annotations/{chain}",
    "GET /v1/status",
    "GET /metrics",
    "GET /healthz",
    "GET /readyz",
    "GET /audit/{name}",
    "GET /acts/{chain}/{link}/{run}/{folder}/{name}",
    "GET /artifacts/{link}/{fingerprint}/{folder}/{name}",
)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, dict[str, Any]]]:
    """A gateway with a model, a key that opens all of it, and what a request must name to be about something."""
    home = tmp_path_factory.mktemp("home")
    deploy(home, 1)
    deploy_decoder(home, 1)
    key = add_key(home, "all", ("ask", "feedback", "operate"))
    with local_client(home) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        eventually(lambda: client.get("/readyz").status_code == 200)
        answer = client.post("/v1/classify", json={"model": "tiny", "input": ["good"] * 3}).json()
        enqueue(home, "tiny", Queue([Task(answer["id"], 2, "good", "positive", "tiny-1", "random")], LABELS, "single_label"))
        yield client, {"model": "tiny", "release": "tiny-1", "chain": "tiny", "id": answer["id"], "index": 2, "label": "positive"}


TALK: dict[str, Any] = {
    "model": "talk",
    "max_tokens": 2,
    "stop": None,
    "logit_bias": None,
    "banned_words": None,
    "grammar": None,
    "response_format": None,
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_answer_is_documented(served: tuple[TestClient, dict[str, Any]], operation: str) -> None:
    client, known = served
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    method, path = operation.split(" ")
    seen = set[int]()

    @settings(max_examples=50, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=schema[path][method].as_strategy(), real=st.booleans())
    def holds(case: Any, real: bool) -> None:
        plausible = TALK if path.endswith("completions") else known
        for part in (case.body, case.path_parameters):
            if real and isinstance(part, dict) and not path.startswith("/acts/"):
                part |= {name: value for name, value in plausible.items() if name in part}
        if path.endswith("completions") and isinstance(case.body, dict):
            case.body.setdefault("max_tokens", 2)  # else an answer fills the context
        sent = case.as_transport_kwargs(base_url=str(client.base_url))
        response = client.request(**{**sent, "headers": {**sent["headers"], **client.headers}})
        case.validate_response(response, checks=CHECKS)
        seen.add(response.status_code)

    holds()
    assert (404 if path.startswith(("/artifacts/", "/acts/", "/audit/")) else 200) in seen and not seen & {401, 403, 405, 413}, (
        "the questions do not reach the route"
    )


def test_the_document_knows_every_route_and_no_answer_of_fastapis_own(tmp_path: Path) -> None:
    with local_client(tmp_path) as client:
        paths = client.get("/openapi.json").json()["paths"]
    assert {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations} == set(OPERATIONS)
    for operations in paths.values():
        for operation in operations.values():
            assert "422" not in operation["responses"] and {"401", "403", "413", "429", "500", "503"} <= set(operation["responses"])
