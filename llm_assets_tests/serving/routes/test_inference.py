"""The models that may be asked; what they answer stands in test_classifications.py, test_explanation.py and test_completions.py."""

from __future__ import annotations

from fastapi.testclient import TestClient

from llm_assets_tests.serving.tiny import LABELS


def test_the_models_that_are_served(client: TestClient) -> None:
    models = client.get("/v1/models").json()["data"]
    assert [(model["id"], model["release"], model["labels"]) for model in models] == [("tiny", "tiny-1", LABELS)]
