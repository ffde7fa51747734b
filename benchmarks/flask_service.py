"""A transformers pipeline behind Flask, as most tutorials serve a classifier: what the gateway is compared with.

``gunicorn --worker-class gthread --threads 32 'benchmarks.flask_service:create("MODEL")'`` runs it; gunicorn keeps connections
open, which Flask's own development server does not.
"""

from __future__ import annotations

from flask import Flask, jsonify, request
from transformers import pipeline

import llm_assets.training.architectures  # noqa: F401  # tells transformers of the chain's own classes


def create(model: str) -> Flask:
    """The application over a fine-tuned model's folder."""
    app = Flask(__name__)
    classify = pipeline("text-classification", model=model, device="cpu", truncation=True, max_length=128)

    @app.post("/classify")
    def answer():  # type: ignore[no-untyped-def]
        return jsonify(classify(request.get_json()["input"]))

    return app
