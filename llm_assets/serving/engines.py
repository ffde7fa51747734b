"""What serves a release: the engine of its model's task."""

from __future__ import annotations

import json
import os
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from llm_assets.serving.engine import EngineError, OnnxClassifier
from llm_assets.serving.errors import ApiError
from llm_assets.serving.generation import TASK, Generator
from llm_assets.serving.vllm import VllmGenerator

Engine = OnnxClassifier | Generator
CHOICE = "LLM_ASSETS_ENGINE"  # the environment's word on what generates on this host
GENERATORS = {"llama.cpp": Generator, "vllm": VllmGenerator}
BESIDE = ":"  # in a model's name, between the chain, which holds none, and the adapter beside its model


class Serving(Protocol):
    """A release with its engine."""

    @property
    def engine(self) -> Engine:
        """What answers."""
        ...


def load_engine(directory: Path) -> Engine:
    """The engine that the ``task`` in ``serving.json`` asks for, classification where it says none. Raises ``EngineError``.

    Which one generates is the host's choice: llama.cpp, unless the environment variable ``LLM_ASSETS_ENGINE`` says vllm.
    """
    settings = directory / "serving.json"
    if settings.is_file() and json.loads(settings.read_text(encoding="utf-8")).get("task") == TASK:
        chosen = os.environ.get(CHOICE, "llama.cpp")
        if chosen not in GENERATORS:
            raise EngineError(f"{CHOICE} is {chosen!r}; the engines that generate are: {', '.join(GENERATORS)}")
        return GENERATORS[chosen](directory)
    return OnnxClassifier(directory)


def models_of(chain: str, engine: Engine) -> list[str]:
    """The names under which an engine answers: the chain's, and that with each adapter."""
    return [chain, *(f"{chain}{BESIDE}{adapter}" for adapter in (engine.adapters if isinstance(engine, Generator) else ()))]


def classifier_of(serving: Serving, chain: str) -> OnnxClassifier:
    """The classifier of a release. Raises ``ApiError`` where its model generates."""
    if isinstance(serving.engine, OnnxClassifier):
        return serving.engine
    raise ApiError(HTTPStatus.BAD_REQUEST, f"model {chain} generates: ask it at /v1/chat/completions or /v1/completions", "model")


def generator_of(serving: Serving, chain: str) -> Generator:
    """The generator of a release. Raises ``ApiError`` where its model classifies."""
    if isinstance(serving.engine, Generator):
        return serving.engine
    raise ApiError(HTTPStatus.BAD_REQUEST, f"model {chain} classifies: ask it at /v1/classify", "model")
